"""A model's file that goes away: before it is read that is a sentence, afterwards nothing at all."""

import os

import httpx
import pytest

from tests.reference.tiny import make_tiny_gguf
from townhall.cli.main import main
from townhall.server import server

pytestmark = pytest.mark.slow


def answer(server, text):
    body = {"model": "gary", "messages": [{"role": "user", "content": text}], "max_tokens": 6, "temperature": 0}
    return httpx.post(f"{server.url}/chat/completions", json=body, timeout=60).json()["choices"][0]["message"]["content"]


@pytest.mark.parametrize("type", ["F16", "Q4_1"])
def test_once_loaded_the_file_may_be_overwritten_truncated_and_deleted(child, tmp_path, type):
    path = make_tiny_gguf(tmp_path / "tiny.gguf", type=type, context_length=1024)
    server = child("--model", str(path), "--slots", "2", "--persona", "gary")
    before = answer(server, "Hi")
    with path.open("r+b") as file:
        file.write(b"\0" * path.stat().st_size)
    assert answer(server, "Hi") == before
    os.truncate(path, 0)  # a memory map of it would now kill the process
    assert answer(server, "Well?") and answer(server, "Hi") == before
    path.unlink()
    assert answer(server, "And now?") and answer(server, "Hi") == before
    assert server.end() == 0


def test_a_file_that_goes_while_the_server_starts_is_told_in_a_sentence(tmp_path, monkeypatch, capsys):
    path = make_tiny_gguf(tmp_path / "tiny.gguf", context_length=1024)
    bind = server.bind

    def bind_later(host, port):
        path.unlink()  # it was there when the flags were checked
        return bind(host, port)

    monkeypatch.setattr(server, "bind", bind_later)
    assert main(["serve", "--model", str(path), "--port", "0"]) == 2
    assert capsys.readouterr().err == f"townhall: --model {path} does not exist; pass the path of a GGUF file\n"
