"""Lorebooks and libraries behind the API: the prompt of a transcript is a conversation's, and `townhall` says what went into it."""

import json

import httpx
import pytest

from tests.townhall.fake import FakeLlama
from tests.townhall.test_persona_sources import LORE, folder
from townhall.characters.errors import CardError
from townhall.conversation import Conversation
from townhall.library.errors import LibraryError
from townhall.library.library_source import UNKNOWN
from townhall.persona import load_persona
from townhall.persona_sources import open_sources

__all__ = ["folder"]

pytestmark = pytest.mark.slow


def ask(server, messages, model="guide", **fields):
    body = {"model": model, "messages": [{"role": role, "content": text} for role, text in messages], **fields}
    response = httpx.post(f"{server.url}/chat/completions", json=body, timeout=60)
    assert response.status_code == 200, response.text
    return response.json()


def test_a_transcript_has_the_prompts_of_a_conversation(serve, folder):
    llama, beside = FakeLlama(["The tower is near, I think."]), FakeLlama(["The tower is near, I think."])
    server = serve(llama, personas=(str(folder / "guide.yaml"),))
    persona = load_persona(folder / "guide.yaml")
    conversation = Conversation(beside, persona, sampling=object(), sources=open_sources(persona, beside.tokenizer))
    messages = []
    for text in ("Which number has the house called Elm?", "What of the tower?", "And then?", "Thanks!", "The bell!"):
        messages.append(("user", text))
        reply = ask(server, messages)
        "".join(conversation.reply(text))
        assert llama.tokenizer.show(llama.prompts[-1]) == beside.tokenizer.show(beside.prompts[-1])
        info = reply["townhall"]
        assert sum(part["tokens"] for part in info["parts"]) == info["prompt_tokens"] == len(llama.prompts[-1])
        assert info["parts"] == [part.to_json() for part in conversation.last.receipt.parts]
        assert [text["text"] for text in info["inserted"]] == [text.text for text in conversation.last.gathered.texts]
        messages.append(("assistant", reply["choices"][0]["message"]["content"]))


def test_passages_come_with_file_and_lines_in_a_stream_too(serve, folder):
    server = serve(personas=(str(folder / "guide.yaml"),))
    body = {"model": "guide", "stream": True, "messages": [{"role": "user", "content": "Which number has the house called Cedar?"}]}
    with httpx.stream("POST", f"{server.url}/chat/completions", json=body, timeout=60) as response:
        first = next(line for line in response.iter_lines() if line.startswith("data: "))
    (part,) = (part for part in json.loads(first.removeprefix("data: "))["townhall"]["parts"] if part["name"] == "library")
    assert part["items"][0]["file"].endswith("house2.txt") and part["items"][0]["first_line"] == 1


def passages(receipt):
    """Number and whether it is cited, of each passage in a receipt."""
    return {item["number"]: item.get("cited") for part in receipt["parts"] for item in part["items"] if "number" in item}


def streamed(server, path, **body):
    """The JSON of each event."""
    text = httpx.post(f"{server.root}{path}", json={"model": "guide", "stream": True, **body}, timeout=60).text
    lines = [line.removeprefix("data: ") for line in text.splitlines()]
    return [json.loads(line) for line in lines if line.startswith("{")]


def test_what_a_reply_cites_is_in_the_receipt_of_every_api(serve, folder):
    server = serve(FakeLlama(["It has the number four [1]."]), personas=(str(folder / "guide.yaml"),))
    question = "Which number have the houses called Cedar and Elm?"
    messages = [{"role": "user", "content": question}]
    first, *_, last = streamed(server, "/v1/chat/completions", messages=messages)
    assert set(passages(first["townhall"]).values()) == {None}  # before the reply it is not known
    cited = passages(last["townhall"])
    assert len(cited) > 1 and cited == {number: number == 1 for number in cited}
    assert passages(ask(server, [("user", question)])["townhall"]) == cited
    *_, last = streamed(server, "/v1/responses", input=question)
    assert passages(last["response"]["townhall"]) == cited
    *_, last = streamed(server, "/api/chat", messages=messages)
    assert passages(last["townhall"]) == cited


@pytest.mark.parametrize("stream", [False, True])
def test_an_expert_says_that_it_does_not_know(serve, folder, stream):
    server = serve(FakeLlama(["Ask another."]), personas=(str(folder / "guide.yaml"),))
    question = [("user", "What is the capital of Peru?")]
    if stream:
        body = {"model": "guide", "stream": True, "messages": [{"role": "user", "content": question[0][1]}]}
        lines = httpx.post(f"{server.url}/chat/completions", json=body, timeout=60).text.splitlines()
        chunks = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
        said = "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])
    else:
        said = ask(server, question)["choices"][0]["message"]["content"]
    assert said == f"{UNKNOWN} Ask another." or said == f"{UNKNOWN}Ask another."


def test_a_shape_and_logprobs_begin_as_they_must(serve, folder):
    server = serve(FakeLlama(['{"a": 1}']), personas=(str(folder / "guide.yaml"),))
    reply = ask(server, [("user", "What is the capital of Peru?")], logprobs=True)
    assert UNKNOWN not in reply["choices"][0]["message"]["content"] and reply["townhall"]["parts"][-1]["name"] != "opening"


def test_the_bare_model_and_other_personas_have_no_sources(serve, folder):
    server = serve(personas=("stacy", str(folder / "guide.yaml")))
    for model in ("double", "stacy"):
        assert not ask(server, [("user", "The tower?")], model)["townhall"]["inserted"]


def test_lorebooks_and_libraries_of_all_personas(serve, folder):
    server = serve(personas=("stacy",), lorebooks=(folder / "world.json",), knowledge=(str(folder / "docs"),))
    info = ask(server, [("user", "The tower? And which number has the house called Fir?")], "stacy")["townhall"]
    assert {"lorebook", "library"} <= {part["name"] for part in info["parts"]}
    assert not ask(server, [("user", "The tower?")], "double")["townhall"]["inserted"]


def test_a_character_that_is_put_anew_has_its_new_lorebook(serve, folder):
    server = serve(personas=("stacy",))
    card = json.loads((folder / "ada.json").read_text())
    from townhall.characters import character_folder
    from townhall.characters.cards import Card

    stored = character_folder.add(Card.from_json(json.dumps(card).encode(), "card"), b"", "ada")
    book = LORE | {"entries": [LORE["entries"][0] | {"content": "The tower fell."}]}
    response = httpx.put(f"{server.root}/townhall/characters/{stored.id}/lorebook", json={"book": book}, timeout=60)
    assert response.status_code == 200, response.text
    assert "The tower fell." in ask(server, [("user", "The tower?")], "ada")["townhall"]["inserted"][0]["text"]


@pytest.mark.parametrize(
    "options, error",
    [({"knowledge": ("nothing",)}, LibraryError), ({"lorebooks": ("guide.yaml",)}, CardError)],
    ids=["library", "lorebook"],
)
def test_what_cannot_be_used_is_refused_at_the_start(serve, folder, options, error):
    options = {key: tuple(folder / name if key == "lorebooks" else name for name in names) for key, names in options.items()}
    with pytest.raises(error):
        serve(personas=("stacy",), **options)


def test_a_persona_whose_library_is_missing_is_left_out_where_all_are_served(serve, folder):
    (folder / "lost.yaml").write_text("name: Lost\ndescription: Lost.\nknowledge: [nowhere]\n")
    server = serve(personas=("stacy", str(folder / "lost.yaml")), leave_out=True)
    assert [served.id for served in server.service.served_models] == ["stacy", "double"]
