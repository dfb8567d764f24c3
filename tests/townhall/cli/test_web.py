"""`townhall web` says in one sentence what keeps it from starting; started, it is there, and Ctrl-C ends it."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from townhall.cli.main import main

pytestmark = pytest.mark.slow

pytest.importorskip("starlette", reason="the extra `web` is not installed")
FAKE = ["web", "--model", "fake:echo"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Nobody's own settings and logs."""
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.mark.parametrize(
    "arguments, fault",
    [
        ([*FAKE, "--host", "0.0.0.0"], "--host 0.0.0.0 can be reached by others: pass --api-key-file FILE, or --no-auth"),
        ([*FAKE, "--host", "no.such.host.invalid"], "--no-auth"),
        ([*FAKE, "--log-to", "talk.md"], "--log-to talk.md names a file"),
        ([*FAKE, "--persona", "nobody"], "nobody"),
        (["web", "--model", "no-such-file.gguf", "--port", "0"], "--model no-such-file.gguf does not exist"),
        ([*FAKE, "--temperature", "-1", "--port", "0"], "temperature"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_exit_code_2(arguments, fault, capsys):
    assert main(arguments) == 2
    *_, said = capsys.readouterr().err.strip().splitlines()
    assert said.startswith("townhall: ") and fault in said


def test_without_the_extra_it_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "starlette", None)
    for name in [name for name in sys.modules if name.startswith(("townhall.server", "townhall.web", "starlette."))]:
        monkeypatch.delitem(sys.modules, name)
    assert main(FAKE) == 2
    assert "pip install 'townhall[server]'" in capsys.readouterr().err


def test_a_port_that_is_taken_is_one_sentence(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main([*FAKE, "--port", str(port)]) == 2
    said = capsys.readouterr().err
    assert f"--port {port} cannot be listened on" in said and "starting" not in said


def test_the_page_stands_until_ctrl_c(tmp_path):
    port = free_port()
    arguments = [sys.executable, "-m", "townhall", *FAKE, "--no-open", "--port", str(port), "--log-to", str(tmp_path / "logs")]
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ)
    try:
        lines = iter(process.stderr.readline, "")
        said = next(line for line in lines if "the page is at" in line)
        assert f"http://127.0.0.1:{port}/" in said
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        assert "Townhall" in opener.open(f"http://127.0.0.1:{port}/", timeout=60).read().decode()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert "Traceback" not in process.stderr.read() and process.stdout.read() == ""
    finally:
        process.kill()
        process.wait()
