"""What one client may ask of everybody's server."""

import json
import socket
import time

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.townhall.fake import FakeLlama
from tests.townhall.server.running import ask

pytestmark = pytest.mark.slow


def error(response, status):
    """The error object of a response that must have this status."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/json"
    info = response.json()["error"]
    assert set(info) == {"message", "type", "param", "code"} and info["message"] and info["type"]
    return info


class Slow(FakeLlama):
    """Takes its time for every word."""

    class generation(FakeLlama.generation):
        def __next__(self):
            time.sleep(0.02)
            return super().__next__()


def test_a_body_that_is_too_large_is_refused_before_it_is_read(serve):
    server = serve(limits={"body": 10_000})
    assert error(ask(server, "x" * 20_000), 413)["code"] == "body_too_large"

    def chunks():
        for _ in range(100):
            yield b" " * 1000

    assert error(httpx.post(f"{server.url}/chat/completions", content=chunks()), 413)
    assert ask(server).status_code == 200


def test_too_many_messages_are_refused(serve):
    server = serve(limits={"messages": 50})
    many = [{"role": "user", "content": "Hi"}] * 51
    asked = {"model": "stacy", "messages": many}
    assert error(httpx.post(f"{server.url}/chat/completions", json=asked), 422)["code"] == "too_many_messages"


def test_headers_that_are_too_large_are_refused(serve):
    server = serve(limits={"header": 4096})
    unfinished = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * 8000
    assert exchange(server, unfinished).startswith(b"HTTP/1.1 400 ")
    assert httpx.get(f"{server.root}/health").status_code == 200


def exchange(server, data, wait=0.0):
    """Send raw bytes and read until the server closes."""
    with socket.create_connection(server.address) as connection:
        connection.settimeout(60)
        connection.sendall(data)
        time.sleep(wait)
        received = b""
        while part := connection.recv(65536):
            received += part
        return received


def test_a_body_that_does_not_come_is_not_waited_for(serve):
    server = serve(limits={"arrival": 0.1})
    request = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\nConnection: close\r\n\r\n{"
    assert exchange(server, request).startswith(b"HTTP/1.1 408 ")


def test_what_is_no_http_is_refused_and_the_server_goes_on(serve):
    server = serve()
    assert exchange(server, b"\x16\x03\x01 hello\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert httpx.get(f"{server.root}/health").status_code == 200


def test_a_request_that_takes_too_long_is_ended(serve):
    server = serve(Slow([" ".join(["la"] * 400)]), limits={"request": 0.3})
    assert error(ask(server), 408)["code"] == "timeout"
    server.wait(lambda: server.service.scheduler.active == 0)
    asked = {"model": "stacy", "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
    with httpx.stream("POST", f"{server.url}/chat/completions", json=asked) as r:
        *_, last, done = r.read().decode().strip().split("\n\n")
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "timeout" and done == "data: [DONE]"


def test_unknown_paths_and_methods_are_told_in_json(serve):
    server = serve()
    assert error(httpx.get(f"{server.root}/v1/images"), 404)["code"] == "not_found"
    for path in ("/v1/chat/completions/", "/health/", "//v1/models"):  # no redirect, either
        assert error(httpx.post(f"{server.root}{path}"), 404)["message"].endswith(f"POST {path}")
    assert error(httpx.get(f"{server.url}/chat/completions"), 405)["code"] == "method_not_allowed"


def test_without_a_key_only_our_own_names_and_pages_may_ask(serve):
    server = serve(hosts=("localhost", "127.0.0.1", "::1"), cors=("http://mine.example",))
    for host in ("evil.example", "localhost@evil.example", "[::1", "a]b", ""):
        assert error(httpx.get(f"{server.url}/models", headers={"Host": host}), 403)["code"] == "wrong_host"
    assert error(httpx.get(f"{server.url}/models", headers={"Origin": "http://evil.example"}), 403)["code"] == "wrong_origin"
    allowed = httpx.get(f"{server.url}/models", headers={"Origin": "http://mine.example"})
    assert allowed.status_code == 200 and allowed.headers["Access-Control-Allow-Origin"] == "http://mine.example"
    asked = {"Origin": "http://mine.example", "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    assert httpx.options(f"{server.url}/chat/completions", headers=asked).status_code == 200


@pytest.mark.parametrize("header", [None, "secret", "Bearer", "Bearer secre", "Bearer secrets", "Basic secret", "Bearer sécret"])
def test_a_wrong_key_is_refused(serve, header, caplog):
    server = serve(keys=("secret",))
    headers = {} if header is None else {"Authorization": header.encode()}
    response = httpx.get(f"{server.url}/models", headers=headers)
    assert error(response, 401)["type"] == "authentication_error" and response.headers["WWW-Authenticate"] == "Bearer"
    assert error(httpx.get(f"{server.root}/metrics", headers=headers), 401)
    assert httpx.get(f"{server.root}/health", headers=headers).status_code == 200
    assert "secre" not in caplog.text + response.text


def test_what_is_counted_can_be_read(serve):
    server = serve()
    ask(server)
    ask(server)
    server.wait(lambda: server.service.scheduler.active == 0)
    text = httpx.get(f"{server.root}/metrics").text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert values['townhall_requests_total{path="/v1/chat/completions",status="200"}'] == "2.0"
    assert float(values["townhall_prompt_tokens_total"]) > float(values["townhall_cached_tokens_total"]) > 0
    assert float(values["townhall_completion_tokens_total"]) == 8 and float(values["townhall_first_text_seconds_count"]) == 2
    assert float(values["townhall_decode_passes_total"]) == float(values["townhall_decode_rows_total"]) >= 8  # a double shares none
    assert not any("spec_decode" in name for name in values)  # nothing is guessed here


def test_hits_of_the_prefix_cache_are_what_replies_say_was_cached(serve):
    server = serve()
    said = [{"role": "user", "content": "Hello"}]
    first = ask(server).json()
    talk = [*said, first["choices"][0]["message"], {"role": "user", "content": "And then?"}]
    second = ask(server, messages=talk).json()
    bare = ask(server, "Something else altogether", model="double").json()
    server.wait(lambda: server.service.scheduler.active == 0)
    samples = [s for family in text_string_to_metric_families(httpx.get(f"{server.root}/metrics").text) for s in family.samples]
    hits = {s.labels["source"]: s.value for s in samples if s.name == "townhall_prefix_cache_hits_total"}
    prompts = {s.labels["source"]: s.value for s in samples if s.name == "townhall_prefix_cache_prompts_total"}
    queries = next(s.value for s in samples if s.name == "townhall_prefix_cache_queries_total")
    cached = [reply["usage"]["prompt_tokens_details"]["cached_tokens"] for reply in (first, second, bare)]
    assert cached[0] > 0 and cached[1] > cached[0]
    assert hits["persona"] == cached[0] and hits["conversation"] == cached[1] and sum(hits.values()) == sum(cached)
    assert queries == sum(reply["usage"]["prompt_tokens"] for reply in (first, second, bare)) and sum(prompts.values()) == 3
    assert bool(cached[2]) != ("none" in prompts)


def test_health_says_what_is_going_on(serve):
    health = httpx.get(f"{serve().root}/health").json()
    assert health["status"] == "ok" and health["device"]["device"] == "FAKE" and health["queue"] == {"waiting": 0, "most": 64}


def test_background_requests_never_take_a_chats_cache(serve):
    server = serve(slots=1, background_agents=("Titler",))

    def cached(text, headers=None, **fields):
        asked = {"model": "stacy", "messages": [{"role": "user", "content": text}], **fields}
        reply = httpx.post(f"{server.url}/chat/completions", json=asked, headers=headers).json()
        return reply["usage"]["prompt_tokens_details"]["cached_tokens"]

    chat_state = "A long talk about everything. " * 8
    first = cached(chat_state)
    cached("Give this a title: " + chat_state, townhall={"lane": "background"})
    cached("Give this some tags: " + chat_state, headers={"User-Agent": "Titler/1.0"})
    assert cached(chat_state) > first
    for task in ("title", "tags", "follow_ups"):  # as Open WebUI asks, which says nothing of a lane
        cached(f"### Task:\nGenerate {task} for this. {chat_state}", stream=False, max_completion_tokens=1000)
    assert cached(chat_state) > first
    answered = [{"role": "assistant", "content": "Well."}, {"role": "user", "content": "Another talk"}]
    cached("Hi", messages=[{"role": "user", "content": "Hi"}, *answered])
    assert cached(chat_state) < first + 10  # with one slot, another chat does take it
