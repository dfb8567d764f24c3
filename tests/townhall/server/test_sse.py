"""Streams, byte by byte."""

import asyncio
import json
import threading

import httpx
import pytest

from tests.townhall.fake import FakeLlama
from townhall.fake.fake_model import ScriptedReply
from townhall.server.event_stream import stream
from townhall.server.job import AnswerEnd, JobDone, RequestFigures, TextEvent
from townhall.server.planned_request import PlannedRequest
from townhall.server.responses import ChatResponseBuilder

pytestmark = pytest.mark.slow


def frames(server, path="/chat/completions", **fields):
    """The JSON of each frame."""
    question = {"prompt": "Hi"} if path == "/completions" else {"messages": [{"role": "user", "content": "Hi"}]}
    asked = {"model": "stacy", "stream": True, **question}
    with httpx.stream("POST", f"{server.url}{path}", json=asked | fields, timeout=60) as response:
        assert response.status_code == 200 and response.headers["Content-Type"] == "text/event-stream"
        text = "".join(response.iter_text())
    assert text.endswith("\n\n")
    events = text.removesuffix("\n\n").split("\n\n")
    assert events[-1] == "data: [DONE]"
    for event in events:
        assert "\n" not in event and event.startswith(("data: ", ": "))
    return [json.loads(event.removeprefix("data: ")) for event in events[:-1] if event.startswith("data: ")]


def said(chunks):
    return "".join(choice.get("text") or choice.get("delta", {}).get("content") or "" for chunk in chunks for choice in chunk["choices"])


def test_every_chunk_is_what_the_contract_says(serve):
    chunks = frames(serve(FakeLlama(["Paris is big."])))
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    for chunk in chunks:
        assert chunk["object"] == "chat.completion.chunk" and chunk["model"] == "stacy" and "usage" not in chunk
        assert (chunk["id"], chunk["created"]) == (chunks[0]["id"], chunks[0]["created"])
        (choice,) = chunk["choices"]
        assert choice["index"] == 0 and "finish_reason" in choice
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert chunks[-1]["choices"][0]["delta"] == {} and chunks[-1]["townhall"]["persona"] == "Stacy"


def test_usage_comes_last_and_only_where_it_was_asked_for(serve):
    chunks = frames(serve(FakeLlama(["Paris is big."])), stream_options={"include_usage": True})
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["completion_tokens"] == 4 and "townhall" in chunks[-1]


@pytest.mark.parametrize("path", ["/chat/completions", "/completions"])
def test_a_stop_string_is_never_shown_in_whole_or_in_part(serve, path):
    tokens = ScriptedReply(tokens=("One", " two", " ST", "O", "P", " three"))
    chunks = frames(serve(FakeLlama(lambda prompt: [*tokens.tokens])), path, stop=["STOP", "never"])
    assert said(chunks).rstrip() == "One two" and chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert all("S" not in said([chunk]) for chunk in chunks)


@pytest.mark.parametrize("path", ["/chat/completions", "/completions"])
def test_what_only_began_like_a_stop_string_is_shown_at_the_end(serve, path):
    chunks = frames(serve(FakeLlama(lambda prompt: ["One", " ST", "O"])), path, stop="STOP")
    assert said(chunks) == "One STO" and chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_a_full_window_is_no_stop(serve):
    chunks = frames(serve(FakeLlama([" ".join(["la"] * 900)], max_context=500)), max_tokens=2000)
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert len(said(chunks).split()) + chunks[-1]["townhall"]["prompt_tokens"] == 501  # the last id needs no place in the cache


def test_a_failure_in_mid_stream_is_told(serve):
    server = serve(FakeLlama(lambda prompt: ["Well", " then", ZeroDivisionError("a bug")]))
    chunks = frames(server)
    assert said(chunks[:-1]) == "Well then"
    assert chunks[-1]["error"]["code"] == "internal_error" and chunks[-1]["error"]["type"] == "server_error"
    assert server.service.ready and server.alive


def test_a_stream_that_is_behind_lets_others_have_the_loop():
    """A client's going is heard of there, and until then one writes to a connection that is gone."""
    reply = ChatResponseBuilder(PlannedRequest([None], {}, "stacy"), FakeLlama().tokenizer, False)

    async def behind() -> list[int]:
        events, frames, heard = asyncio.Queue(), [], []
        for event in [*[TextEvent(0, "la ")] * 100, AnswerEnd(0, "stop"), JobDone(RequestFigures(1, 0, 100, 0.1, 0.1))]:
            events.put_nowait(event)
        asyncio.get_running_loop().call_soon(lambda: heard.append(len(frames)))
        async for frame in stream(events, reply, False, 1, 10.0):
            frames.append(frame)
        assert len(frames) == 103
        return heard

    (at,) = asyncio.run(behind())
    assert at < 5


class Patient(FakeLlama):
    """Says its first word once something has been heard."""

    heard: threading.Event

    def generate(self, *arguments, **settings):
        assert self.heard.wait(60)
        return super().generate(*arguments, **settings)


def test_a_stream_that_has_nothing_to_say_yet_is_kept_alive(serve):
    llama, comments = Patient(["Fine."]), []
    llama.heard = threading.Event()
    asked = {"model": "stacy", "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
    server = serve(llama, limits={"keep_alive": 0.1})
    with httpx.stream("POST", f"{server.url}/chat/completions", json=asked, timeout=60) as response:
        chunks = []
        for line in response.iter_lines():
            if line.startswith(": "):
                comments.append(line)
                llama.heard.set()
            elif line.startswith("data: {"):
                chunks.append(json.loads(line.removeprefix("data: ")))
    assert said(chunks) == "Fine." and set(comments) == {": keep-alive"}


def test_characters_are_never_split(tiny_server):
    for seed in range(4):  # of a model that says any byte after any other
        settings = {"max_tokens": 60, "temperature": 2.0, "seed": seed}
        chunks = frames(tiny_server, **settings)
        asked = {"model": "stacy", "messages": [{"role": "user", "content": "Hi"}], **settings}
        whole = httpx.post(f"{tiny_server.url}/chat/completions", json=asked, timeout=60).json()
        assert said(chunks) == whole["choices"][0]["message"]["content"] != ""
