"""`townhall serve` as a process: what it refuses, and how it ends."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from townhall.cli.main import main

ROOT = Path(__file__).parents[3]


class Child:
    """A server in a process of its own; `said` are the lines of its stderr."""

    def __init__(self, tmp_path, script, *flags):
        path = tmp_path / "script.yaml"
        path.write_text(script)
        command = [sys.executable, "-m", "townhall", "serve", "--model", f"fake:script={path}", "--port", "0", *flags]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=tmp_path)
        self.said = []
        for line in self.process.stderr:
            self.said.append(line)
            if found := re.search(r"at (http://\S+)/v1;", line):
                self.url = f"{found[1]}/v1"
                break
        threading.Thread(target=lambda: self.said.extend(self.process.stderr), daemon=True).start()

    def chat(self, **fields):
        asked = {"model": "stacy", "stream": True, "messages": [{"role": "user", "content": "Hi"}], **fields}
        return httpx.stream("POST", f"{self.url}/chat/completions", json=asked, timeout=30)

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.wait(20)


@pytest.fixture
def child(tmp_path):
    children = []

    def start(*arguments):
        children.append(Child(tmp_path, *arguments))
        return children[-1]

    yield start
    for one in children:
        one.process.kill()
        one.process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_answer_that_can_be_finished_is(child, number):
    server = child("pause: 0.05\nreplies: [one two three four five six]\n", "--grace", "10")
    with server.chat() as response:
        lines = response.iter_lines()
        assert "assistant" in next(lines)
        server.process.send_signal(number)
        rest = "\n".join(lines)
    assert '"finish_reason":"stop"' in rest and rest.rstrip().endswith("data: [DONE]")
    assert server.process.wait(20) == 0 and "Traceback" not in "".join(server.said)


def test_an_answer_that_takes_too_long_ends_with_an_error(child):
    server = child(f"pause: 0.1\nreplies: ['{'la ' * 400}']\n", "--grace", "2")
    with server.chat() as response:
        lines = response.iter_lines()
        assert "assistant" in next(lines)
        server.process.send_signal(signal.SIGTERM)
        rest = "\n".join(lines)
    assert '"code": "shutting_down"' in rest and rest.rstrip().endswith("data: [DONE]")
    assert server.process.wait(20) == 0 and "Traceback" not in "".join(server.said)


def test_an_idle_server_ends_at_once_and_its_port_is_free_again(child):
    server = child("replies: [Fine.]\n")
    assert httpx.get(f"{server.url}/models").status_code == 200
    port = httpx.URL(server.url).port
    assert server.end() == 0
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))


def test_keys_come_from_a_file_and_are_never_said(child, tmp_path):
    keys = tmp_path / "keys.txt"
    keys.write_text("first-key\nsecond-key\n")
    server = child("replies: [Fine.]\n", "--api-key-file", str(keys))
    assert httpx.get(f"{server.url}/models", headers={"Authorization": "Bearer second-key"}).status_code == 200
    assert httpx.get(f"{server.url}/models", headers={"Authorization": "Bearer third-key"}).status_code == 401
    server.end()
    assert "-key" not in "".join(server.said) + server.process.stdout.read()


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--host", "0.0.0.0"], "can be reached by others: pass --api-key-file"),
        (["--host", "no.such.host.invalid"], "is no address of this machine"),
        (["--persona", "stacey"], "did you mean stacy?"),
        (["--api-key-file", "nowhere.txt"], "--api-key-file nowhere.txt cannot be read"),
        (["--api-key", ""], "--api-key is empty"),
        (["--max-context", "100"], "leaves no room to talk; pass --max-context"),
        (["--context", "summarize"], "is not one of"),
        (["--model", "nowhere.gguf"], "nowhere.gguf does not exist"),
    ],
)
def test_what_cannot_be_served_is_refused_in_a_sentence(flags, complaint, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
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
