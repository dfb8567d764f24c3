"""The server as Ollama's own client meets it."""

import httpx
import numpy as np
import ollama
import pytest

from tests.townhall.fake import FakeLlama, FakeTokenizer
from tests.townhall.formats.call_templates import HERMES
from tests.townhall.server.test_openai_client import SMALL, Person
from tests.townhall.server.test_tools import CALL, SECOND, TOOLS
from townhall.library.embedder import NAME, default_embedder

pytestmark = pytest.mark.slow
HI = [{"role": "user", "content": "What is big?"}]


@pytest.fixture
def connect(serve):
    """connect(llama, **options): a client of a server over a double."""
    return lambda llama=None, **options: ollama.Client(serve(llama or FakeLlama(["Paris is big."]), **options).root)


def test_a_chat_whole_and_streamed(connect):
    client = connect()
    reply = client.chat("stacy", HI)
    assert (reply.message.content, reply.message.role, reply.done, reply.done_reason) == ("Paris is big.", "assistant", True, "stop")
    assert reply.eval_count == 4 and reply.prompt_eval_count > 0
    assert 0 < reply.prompt_eval_duration <= reply.total_duration and 0 < reply.eval_duration < 60e9
    *parts, last = client.chat("stacy:latest", HI, stream=True)
    assert "".join(part.message.content for part in parts) == "Paris is big." and len(parts) > 1
    assert not any(part.done for part in parts) and last.done and last.message.content == "" and last.eval_count == 4


def test_generate_in_the_models_format_and_raw(connect):
    llama = FakeLlama(["Paris is big."])
    client = connect(llama)
    assert client.generate("double", "What is big?", system="Be brief.").response == "Paris is big."
    shown = llama.tokenizer.show(llama.prompts[-1])
    assert shown.startswith("<s><|im_start|>system\nBe brief.<|im_end|>") and "user\nWhat is big?<|im_end|>" in shown
    *parts, last = client.generate("double", "Once upon", raw=True, stream=True)
    assert "".join(part.response for part in parts) == "Paris is big." and last.done
    assert llama.tokenizer.show(llama.prompts[-1]) == "<s>Once upon"
    assert client.generate("double", "").done_reason == "load" and client.chat("double", []).done_reason == "load"


def test_options_are_those_of_our_api(connect):
    client = connect(FakeLlama(["one two three four"]))
    reply = client.chat("double", HI, options={"num_predict": 2, "temperature": 0, "num_ctx": 4096, "top_k": 5, "seed": 3}, keep_alive="5m")
    assert reply.message.content == "one two" and reply.done_reason == "length"
    assert client.chat("double", HI, options={"stop": ["three"], "num_predict": -1}).message.content == "one two"
    with pytest.raises(ollama.ResponseError, match="top_p"):
        client.chat("double", HI, options={"top_p": 7})


def test_thoughts_and_calls(connect):
    llama = FakeLlama([["<think>", "\nHm.", "\n</think>", "\n\n", CALL, "\n", SECOND], "It rains."], tokenizer=FakeTokenizer(HERMES))
    client = connect(llama)
    reply = client.chat("double", HI, tools=TOOLS, think=True)
    assert reply.message.thinking == "Hm." and reply.message.content == ""
    assert [(call.function.name, call.function.arguments) for call in reply.message.tool_calls] == [
        ("get_weather", {"city": "Paris"}),
        ("add", {"a": 1, "b": 2}),
    ]
    # results are matched with their calls by name, in whatever order they come
    results = [{"role": "tool", "tool_name": "add", "content": "3"}, {"role": "tool", "tool_name": "get_weather", "content": "rain"}]
    assert client.chat("double", [*HI, reply.message, *results], tools=TOOLS).message.content == "It rains."
    assert "<tool_response>\n3\n</tool_response>\n<tool_response>\nrain" in llama.tokenizer.show(llama.prompts[-1])
    streamed = list(connect(FakeLlama([CALL])).chat("double", HI, tools=TOOLS, stream=True))
    assert [call.function.name for part in streamed for call in part.message.tool_calls or []] == ["get_weather"]


def test_a_format_is_held(tiny_server):
    client = ollama.Client(tiny_server.root)
    for said in (client.chat("tiny", HI, format=SMALL).message.content, client.generate("tiny", "Who?", format=SMALL).response):
        Person.model_validate_json(said)


def test_models_are_listed_and_shown(connect, tiny_server):
    client = connect()
    assert [model.model for model in client.list().models] == ["stacy:latest", "gary:latest", "double:latest"]
    assert [model.name for model in client.ps().models] == ["stacy:latest", "gary:latest", "double:latest"]
    shown = client.show("stacy")
    assert "tools" in shown.capabilities and shown.modelinfo["llama.context_length"] == 1024
    own = ollama.Client(tiny_server.root)
    assert "embedding" in own.show("tiny").capabilities and own.show("tiny").modelinfo["llama.embedding_length"] == 64
    assert own.list().models[0].size > 0
    assert httpx.get(f"{tiny_server.root}/api/version").json()["version"].count(".") == 2
    with pytest.raises(ollama.ResponseError, match="model 'llama9' not found") as missing:
        client.show("llama9")
    assert missing.value.status_code == 404


def test_vectors_of_the_model_and_of_the_table(tiny_server):
    client, texts = ollama.Client(tiny_server.root), ["How far is the moon?", "The dough rests."]
    found = client.embed("tiny", texts)
    assert np.shape(found.embeddings) == (2, 64) and np.allclose(np.linalg.norm(found.embeddings, axis=1), 1)
    assert found.prompt_eval_count == sum(len(tiny_server.service.llama.tokenizer.encode(text)) for text in texts)
    assert np.allclose(client.embeddings("tiny", texts[0]).embedding, found.embeddings[0])
    assert np.allclose(client.embed(NAME, texts).embeddings, default_embedder().embed(texts), atol=1e-6)
    long = "the " * 3000
    assert len(client.embed("tiny", long).embeddings) == 1
    for wrong, fault in (({"input": long, "truncate": False}, "context_length_exceeded"), ({"input": "a", "dimensions": 65}, "64 numbers")):
        with pytest.raises(ollama.ResponseError, match=fault):
            client.embed("tiny", **wrong)
    with pytest.raises(ollama.ResponseError, match="not found"):
        client.embed("nomic-embed-text", "a")


@pytest.mark.parametrize(
    "path, body, fault",
    [
        ("chat", {"messages": HI}, "model: Field required"),
        ("chat", {"model": "double", "messages": [{"role": "user", "content": "x", "images": ["AA=="]}]}, "images cannot be read"),
        ("generate", {"model": "double", "prompt": "a", "suffix": "b"}, "suffix: this model fills no gaps"),
        ("generate", {"model": "double", "prompt": "a", "template": "{{ .Prompt }}"}, "template: "),
        ("generate", {"model": "double", "prompt": "a", "context": [1, 2]}, "context: "),
        ("chat", {"model": "double", "messages": HI, "format": "xml"}, "'xml' is not known"),
    ],
)
def test_errors_are_texts_as_ollama_has_them(serve, path, body, fault):
    reply = httpx.post(f"{serve().root}/api/{path}", json=body)
    assert reply.status_code == 400 and fault in reply.json()["error"]


def test_errors_before_and_within_an_answer(serve):
    server = serve(FakeLlama([["Paris", RuntimeError("the card fell out")]]), keys=("secret",))
    assert isinstance(httpx.get(f"{server.root}/api/tags").json()["error"], str)
    assert "there is no POST /api/pull" in httpx.post(f"{server.root}/api/pull", headers={"Authorization": "Bearer secret"}).json()["error"]
    with pytest.raises(ollama.ResponseError, match="the server failed"):
        list(ollama.Client(server.root, headers={"Authorization": "Bearer secret"}).chat("double", HI, stream=True))
