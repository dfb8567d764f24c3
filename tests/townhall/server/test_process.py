"""`townhall serve` as a process: what it refuses, and how it ends."""

import signal
import socket
import threading

import httpx
import pytest

from tests.reference.tiny import make_tiny_gguf
from townhall.cli.main import main

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_answer_that_can_be_finished_is(scripted, number):
    server = scripted("pause: 0.05\nreplies: [one two three four five six]\n", "--grace", "10")
    with server.chat() as response:
        lines = response.iter_lines()
        assert "assistant" in next(lines)
        server.process.send_signal(number)
        rest = "\n".join(lines)
    assert '"finish_reason":"stop"' in rest and rest.rstrip().endswith("data: [DONE]")
    assert server.process.wait(60) == 0 and "Traceback" not in "".join(server.said)


def test_an_answer_that_takes_too_long_ends_with_an_error(scripted):
    server = scripted(f"pause: 0.1\nreplies: ['{'la ' * 400}']\n", "--grace", "2")
    with server.chat() as response:
        lines = response.iter_lines()
        assert "assistant" in next(lines)
        server.process.send_signal(signal.SIGTERM)
        rest = "\n".join(lines)
    assert '"code": "shutting_down"' in rest and rest.rstrip().endswith("data: [DONE]")
    assert server.process.wait(60) == 0 and "Traceback" not in "".join(server.said)


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("numbers", [[signal.SIGINT, signal.SIGINT], [signal.SIGTERM]], ids=["impatient", "stuck"])
def test_an_answer_that_nobody_waits_for_any_more_ends_with_an_error_all_the_same(scripted, numbers, streamed):
    server = scripted("pause: 30\nreplies: [one two three]\n", "--grace", "2")  # one pass outlasts all patience
    said = []

    def ask():
        with server.chat(stream=streamed) as response:
            said.extend((response.status_code, response.read().decode()))

    controls = threading.Thread(target=ask)
    controls.start()
    while httpx.get(f"{server.url.removesuffix('/v1')}/health").json()["slots"]["active"] == 0:
        pass
    for number in numbers:
        server.process.send_signal(number)
        while len(numbers) > 1 and not _refuses(server):  # the first was heard: it accepts nobody any more
            pass
    assert server.process.wait(60) == 0
    controls.join(60)
    status, text = said
    assert status == (200 if streamed else 503) and "shutting_down" in text and text.rstrip().endswith("data: [DONE]" if streamed else "}")
    assert "Traceback" not in "".join(server.said) and "ASGI" not in "".join(server.said)


def _refuses(server):
    try:
        return not httpx.get(f"{server.url}/models")
    except httpx.TransportError:
        return True


def test_an_idle_server_ends_at_once_and_its_port_is_free_again(scripted):
    server = scripted("replies: [Fine.]\n")
    assert httpx.get(f"{server.url}/models").status_code == 200
    port = httpx.URL(server.url).port
    assert server.end() == 0
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))


def test_keys_come_from_a_file_and_are_never_said(scripted, tmp_path):
    keys = tmp_path / "keys.txt"
    keys.write_text("first-key\r\nsecond-key\n")
    keys.chmod(0o644)
    server = scripted("replies: [Fine.]\n", "--api-key-file", str(keys))
    assert httpx.get(f"{server.url}/models", headers={"Authorization": "Bearer second-key"}).status_code == 200
    assert httpx.get(f"{server.url}/models", headers={"Authorization": "Bearer third-key"}).status_code == 401
    metrics = httpx.get(f"{server.url.removesuffix('/v1')}/metrics?key=second-key", headers={"Authorization": "Bearer first-key"})
    assert metrics.status_code == 200 and "-key" not in metrics.text
    server.end()
    assert any("keys.txt can be read by others" in line for line in server.said)
    server.said = [line.replace("--api-key-file", "") for line in server.said]
    assert "-key" not in "".join(server.said) + server.process.stdout.read()


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--host", "0.0.0.0"], "can be reached by others: pass --api-key-file"),
        (["--host", "no.such.host.invalid"], "is no address of this machine"),
        (["--persona", "stacey"], "did you mean stacy?"),
        (["--api-key-file", "nowhere.txt"], "--api-key-file nowhere.txt cannot be read"),
        (["--api-key", ""], "--api-key is empty"),
        (["--api-key", "sésame"], "a character that no header can carry"),
        (["--api-key-file", "empty.txt"], "--api-key-file empty.txt holds no key"),
        (["--api-key-file", "words.txt"], "an API key holds a space"),  # and is not three keys that are easy to guess
        (["--api-key-file", "large.txt"], "--api-key-file large.txt is larger than 64 KB"),
        (["--api-key-file", "."], "--api-key-file . cannot be read: Is a directory"),
        (["--max-context", "100"], "leaves no room to talk; pass --max-context"),
        (["--context", "forget"], "is not one of"),
        (["--model", "nowhere.gguf"], "nowhere.gguf does not exist"),
    ],
)
def test_what_cannot_be_served_is_refused_in_a_sentence(flags, complaint, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text(" \n\n")
    (tmp_path / "words.txt").write_text("correct horse battery\n")
    (tmp_path / "large.txt").write_text("key\n" * 20_000)
    model = [] if "--model" in flags else ["--model", "fake:echo"]
    host = ["--no-auth"] if "no.such.host.invalid" in flags else []
    assert main(["serve", "--port", "0", *model, *host, *flags]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert complaint in said[-1] and said[-1].startswith("townhall: ")


def test_a_port_that_is_taken_is_refused(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["serve", "--model", "fake:echo", "--port", str(taken.getsockname()[1])]) == 2
    assert "cannot be listened on" in capsys.readouterr().err


def test_a_model_trained_for_few_tokens_is_served_without_large_personas(child, tmp_path, capsys):
    model = make_tiny_gguf(tmp_path / "tiny.gguf")
    server = child("--model", str(model), "--no-cache")
    assert [one["id"] for one in httpx.get(f"{server.url}/models").json()["data"]] == ["tiny"]
    said = "".join(server.said)
    assert "tiny.gguf was trained for 256 tokens, so that is its context window instead of 1024" in said
    assert "stacy is not served: the persona leaves no room to talk in a window of 256 tokens" in said
    reply = server.ask(model="tiny", max_tokens=2)
    assert reply.json()["townhall"]["window"] == 256
    assert server.ask(model="gpt-4", max_tokens=2).headers["X-Townhall-Warning"]
    # who names a persona wants it
    assert main(["serve", "--model", str(model), "--port", "0", "--persona", "stacy"]) == 2
    assert "Stacy's persona takes" in capsys.readouterr().err


def test_a_strict_server_refuses_a_name_that_it_does_not_serve(child):
    server = child("--model", "fake:echo", "--strict-model")
    assert server.ask(model="gpt-4").status_code == 404 and server.ask().status_code == 200
