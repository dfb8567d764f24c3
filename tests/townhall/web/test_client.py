"""The public API from the page's side: who is there, an answer piece by piece, and each failure as one sentence."""

import asyncio
import socket

import pytest

from townhall.fake.fake_model import ScriptedReply
from townhall.web.client import Accepted, Client, Finished, PromptPreview, ServerGone, Text, WebError, served_model_of

pytestmark = pytest.mark.slow


def ask(client, text="Hello", **fields):
    """Everything that comes of a question."""

    async def run():
        return [event async for event in client.stream({"model": "stacy", "messages": [{"role": "user", "content": text}], **fields})]

    return asyncio.run(run())


def test_voices_bring_their_descriptions_and_greetings(house):
    served_models = asyncio.run(Client(house().root).served_models())
    assert [(served_model.id, served_model.name, served_model.bare) for served_model in served_models] == [
        ("stacy", "Stacy", False), ("gary", "Gary", False), ("double", "double", True),
    ]  # fmt: skip
    assert "rapper" in served_models[0].description and served_models[0].greeting.startswith("Yo")


@pytest.mark.parametrize("address", ["http://here:1", "http://here:1/", "http://here:1/v1", "http://here:1/v1/"])
def test_an_address_may_end_in_v1(address):
    assert Client(address).root == "http://here:1"


def test_a_server_of_another_make_names_ids_alone():
    assert served_model_of({"id": "llama"}).name == "llama" and served_model_of({"id": "llama"}).bare


def test_an_answer_comes_in_pieces_and_ends_with_its_figures(house):
    first, plan, *others, last = ask(Client(house("One two three.").root), seed=5)
    pieces = [event for event in others if isinstance(event, Text)]
    assert isinstance(first, Accepted) and isinstance(plan, PromptPreview)
    assert plan.info["prompt_tokens"] == last.info["prompt_tokens"] == last.usage["prompt_tokens"]
    assert "".join(piece.text for piece in pieces) == "One two three." and len(pieces) > 2
    assert isinstance(last, Finished) and last.reason == "stop"
    assert last.info["seeds"] == [5] and last.info["reserve_tokens"] > 0 and len(last.info["prompt_sha256"]) == 64
    assert last.usage["completion_tokens"] > 2


def test_a_key_is_sent_and_a_wrong_one_is_told(house):
    server = house(keys=("secret",))
    assert asyncio.run(Client(server.root, "secret").served_models())
    with pytest.raises(WebError, match="API key is missing or wrong"):
        asyncio.run(Client(server.root, "guess").served_models())


def test_an_overflow_under_stop_is_told_in_words_that_fit_a_page(house):
    with pytest.raises(WebError, match="does not fit into the window"):
        ask(Client(house(max_context=512).root), "word " * 600, context="stop")


def test_nobody_there_is_one_sentence():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        client = Client(f"http://127.0.0.1:{taken.getsockname()[1]}")
    with pytest.raises(ServerGone, match="does not answer"):
        ask(client)
    with pytest.raises(ServerGone, match="does not answer"):
        asyncio.run(client.served_models())


def test_a_server_that_dies_in_the_middle_is_one_sentence():
    async def story():
        async def half(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            frame = b'data: {"choices":[{"delta":{"content":"Half"},"finish_reason":null}]}\n\n'
            writer.write(head + f"{len(frame):x}\r\n".encode() + frame + b"\r\n")
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(half, "127.0.0.1", 0)
        client = Client(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        said = []
        with pytest.raises(ServerGone, match="went away in the middle"):
            async for event in client.stream({"model": "x", "messages": []}):
                said.append(event)
        server.close()
        assert said == [Accepted(), Text("Half")]

    asyncio.run(story())


def test_hanging_up_frees_the_slot(house):
    server = house(ScriptedReply("word " * 400, pause=0.01))

    async def story():
        stream = Client(server.root).stream({"model": "stacy", "messages": [{"role": "user", "content": "Go"}]})
        async for event in stream:
            if isinstance(event, Text):
                break
        assert server.service.health()["slots"]["active"] == 1
        await stream.aclose()

    asyncio.run(story())
    server.wait(lambda: server.service.health()["slots"]["active"] == 0)
