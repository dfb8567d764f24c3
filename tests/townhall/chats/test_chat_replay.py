"""`townhall replay` repeats what the server kept, whatever was done to the chat between two replies."""

import io
import shutil
import sys
from dataclasses import replace

import pytest

from tests.townhall.chats.conftest import Client
from tests.townhall.server.running import OPTIONS, Opened, Running
from tests.townhall.server.test_summaries import FILLER, TOLD, summarizer
from tests.townhall.test_persona_sources import folder
from townhall.characters import character_folder
from townhall.characters.cards import Card
from townhall.cli.main import main
from townhall.context.summarizer import REQUEST
from townhall.conversation import default_sampling
from townhall.fake.fake_model import FakeModel, ScriptedReply, echo, open_fake
from townhall.library.library_source import UNKNOWN
from townhall.logbook.log_reader import read_log

__all__ = ["folder"]

pytestmark = pytest.mark.slow


@pytest.fixture
def replay(capfd):
    def run(path, *args):
        code = main(["replay", str(path), *args])
        return code, capfd.readouterr().out

    return run


def echoing(chats, **options):
    """A chat with a double that `townhall replay` opens again by its name."""
    llama = open_fake("fake:echo", options.pop("max_context", 1024))
    llama.prompts = []
    return chats(llama=llama, **options)


def count(path):
    return sum(len(turn.facts["tokens"]) - turn.facts.get("given_tokens", 0) for turn in replies(path))


def replies(path):
    return [event for event in read_log(path).events if not isinstance(event, tuple) and (event.facts or {}).get("served")]


def all_the_same(path):
    return f"{len(replies(path))} replies, {count(path)} tokens: all the same\n"


def test_every_operation_leaves_a_log_that_repeats_itself(chats, replay):
    chat = echoing(chats, model="stacy", fields={"greeting": 0})
    chat.say("Hi there my dear"), chat.say("How are you, my friend?")
    chat.reply("/reply", sampler={"temperature": 1.3}, seed=5)
    chat.reply("/continue"), chat.reply("/continue", prefill=" and so")
    chat.call("PATCH", "/messages/2", text="Hello")
    chat.call("PUT", "/messages/3/rating", rating="bad"), chat.call("PUT", "/messages/5/rating", rating="good")
    chat.say("And now?", prefill="Well,")
    chat.call("POST", "/choose", message=5)
    chat.call("POST", "/branch", message=3)
    chat.say("Another way")
    chat.reply("/impersonate")
    chat.call("POST", "/messages", 200, text="A word before", reply=False)
    chat.say("and one after")
    chat.call("DELETE", "/messages/3")
    chat.call("PATCH", note={"text": "be brief", "depth": 2})
    chat.say("With a note")
    chat.call("PATCH", note={"text": "be very brief", "depth": 0, "role": "assistant"}, system="You are Zed.")
    chat.say("With a system prompt")
    chat.call("PATCH", note=None, system="", model="gary", settings={"stop": ["now"]})
    assert chat.say("Stop it now and here")["text"] == "Stop it"
    chat.call("PATCH", settings={"max_tokens": 3, "stop": None})
    chat.say("With another character, and few tokens")
    chat.call("POST", "/messages", 200, text="By hand", role="assistant", reply=False)
    last = chat.call("GET")["messages"][-3]["id"]
    ids = read_log(chat.path).tree.nodes[last + 1].facts["tokens"]
    chat.reply(f"/messages/{last + 1}/alternative", position=1, token=ids[0])
    assert len(replies(chat.path)) == 13 and not read_log(chat.path).damages
    assert replay(chat.path) == (0, all_the_same(chat.path))
    text = chat.path.read_text()
    chat.path.write_text(text.replace('"branch" {"turn": 3}', "").replace("branch {", "choose {"))
    code, out = replay(chat.path)
    assert code == 1 and "its prompt is another one" in out


def test_what_sources_put_in_is_put_in_again_though_they_are_gone(chats, replay, folder):
    card = Card.from_json((folder / "ada.json").read_bytes(), "card")
    character_folder.add(card, b"", "ada")
    chat = echoing(chats, model="ada", personas=("ada", "stacy"), knowledge=(str(folder / "docs"),))
    for text in ("Which number has the house called Elm?", "The tower?", "What is the capital of Peru?", "And the bell?"):
        chat.say(text)
    chat.call("PATCH", note={"text": "be brief", "depth": 1}, system="You are Zed.")
    chat.say("The tower once more"), chat.reply("/reply"), chat.reply("/continue")
    chat.call("PATCH", model="stacy")
    chat.say("Which number has the house called Fir?")
    facts = [turn.facts for turn in replies(chat.path)]
    assert all("inserted" in one for one in facts) and facts[2]["prefill"] == UNKNOWN
    assert "house called Fir is 4005" in facts[-1]["inserted"][0]["text"]
    assert all(sum(part["tokens"] for part in one["receipt"]["parts"]) == one["prompt_tokens"] for one in facts)
    shutil.rmtree(folder / "docs")
    character_folder.update(character_folder.find("ada"), card.changed({"character_book": None}, "card"))
    assert replay(chat.path) == (0, all_the_same(chat.path))


@pytest.mark.parametrize("context", ["slide", "shift"])
def test_what_a_long_chat_let_go_is_let_go_again(chats, replay, context):
    chat = echoing(chats, context=context, max_context=512, max_tokens=64)
    for n in range(9):
        chat.say(f"number {n} " + "word " * 20)
        if n % 3 == 2:
            chat.reply("/reply")
    assert any(turn.facts["receipt"]["dropped_messages"] for turn in replies(chat.path))
    assert replay(chat.path) == (0, all_the_same(chat.path))


def test_replies_after_a_summary_of_the_servers_are_repeated_with_its_words(chats, replay):
    def noting(prompt):
        return ScriptedReply(summarizer(prompt)) if REQUEST in prompt.rsplit("<|im_start|>user", 1)[-1] else echo(prompt)

    llama = FakeModel(noting, 300, source="echo")
    chat = chats(llama=llama, model="double", context="summarize", max_tokens=20)
    for fact in TOLD:
        chat.say(f"{fact} {FILLER}")
        chat.server.wait(lambda: chat.server.service.scheduler.active == chat.server.service.scheduler.waiting == 0)
    assert any(turn.facts["receipt"]["memory"] for turn in replies(chat.path))
    assert replay(chat.path) == (0, all_the_same(chat.path))


def test_a_chat_without_a_persona_repeats_itself(chats, replay):
    chat = echoing(chats, model="double")
    chat.say("Hi"), chat.say("Ho")
    assert chat.log().head["bare"] is True and replay(chat.path) == (0, all_the_same(chat.path))


def test_a_reply_that_was_stopped_is_repeated_as_far_as_it_went(chats, replay):
    chat = echoing(chats, max_context=20_000, max_tokens=15_000)
    chat.call("POST", "/messages", 202, text="word " * 8000)
    chat.watch(lambda name, data: name == "delta")
    chat.call("POST", "/stop")
    chat.say("And?")
    assert replies(chat.path)[0].facts["finish_reason"] == "interrupted" and replay(chat.path) == (0, all_the_same(chat.path))


def test_what_the_terminal_goes_on_with_repeats_itself_as_a_whole(chats, replay, monkeypatch, capfd):
    chat = echoing(chats)
    chat.say("Hi"), chat.reply("/reply")
    monkeypatch.setattr(sys, "stdin", io.StringIO("Ho\n/retry\nHa\n"))
    assert main(["chat", "--resume", str(chat.path)]) == 0
    capfd.readouterr()
    assert chat.texts == ["Hi", "Hi", "Ho", "Ho", "Ha", "Ha"]
    chat.say("Hu")
    assert replay(chat.path)[0] == 0 and chat.texts[-2:] == ["Hu", "Hu"]


def test_a_page_of_an_earlier_version_kept_words_alone(tmp_path, capfd):
    path = tmp_path / "old.md"
    settings = "settings:\n  model: stacy\n  server: http://127.0.0.1:1\n"
    path.write_text(f"---\ntownhall: 1\nid: old\nuser: User\npersona: Stacy\n{settings}---\n\n## User\nHi\n")
    assert main(["replay", str(path)]) == 2 and "kept words alone, no tokens and no seeds" in capfd.readouterr().err


@pytest.mark.weights
def test_the_default_model_repeats_swipes_and_branches(default_model, tmp_path, replay):
    def load():
        from app.models.llama import Llama

        llama = Llama.load(default_model, 1024)
        return Opened(llama, default_sampling(), llama.backend)

    settings = {"model": str(default_model), "max_context": 1024}
    server = Running(load, replace(OPTIONS, chats=tmp_path, log_settings=settings, max_tokens=24))
    try:
        chat = Client(server, tmp_path, None, "stacy", greeting=0)
        chat.say("How far is the moon?")
        prompts = server.service.metrics.prompt_tokens._value.get(), server.service.metrics.cached_tokens._value.get()
        chat.reply("/reply", sampler={"temperature": 1.2, "top_k": 0})
        swiped = server.service.metrics.prompt_tokens._value.get(), server.service.metrics.cached_tokens._value.get()
        assert swiped[0] - prompts[0] - (swiped[1] - prompts[1]) == 1  # the last token is decoded; nothing else is read again
        chat.reply("/continue")
        known = chat.http.get(f"{chat.url}/messages/4/logprobs?top=3").json()["tokens"]
        assert (
            all(token["logprob"] <= 0 and len(token["top"]) == 3 for token in known)
            and "".join(t["text"] for t in known).strip() == chat.texts[-1]
        )
        chat.reply("/messages/4/alternative", position=2, token=known[2]["top"][1]["id"])
        chat.call("PATCH", note={"text": "Answer in one sentence.", "depth": 0})
        chat.call("PATCH", "/messages/2", text="How far is the sun?")
        chat.say("And Mars?")
        assert chat.reply("/impersonate")["text"]
    finally:
        server.stop()
    assert replay(chat.path) == (0, all_the_same(chat.path))
