"""The session at a real (pseudo-)terminal."""

import fcntl
import json
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time

import pytest

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\r")


class Terminal:
    """A program at a terminal: type to it, wait for what it shows."""

    def __init__(self, *args, stdout=None, **env):
        self.master, slave = pty.openpty()

        def take_terminal():
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

        environment = {"TERM": "xterm", **os.environ, **env}
        environment.pop("NO_COLOR", None) if "NO_COLOR" not in env else None
        self.program = subprocess.Popen(
            [sys.executable, "-m", "tests.townhall.cli.fake_townhall", "chat", *args],
            stdin=slave,
            stdout=slave if stdout is None else stdout,
            stderr=slave,
            env=environment,
            preexec_fn=take_terminal,
        )
        os.close(slave)
        self.raw = ""
        self._seen = 0

    @property
    def shown(self):
        return ESCAPES.sub("", self.raw)

    def wait_for(self, text, seconds=15):
        """Read until `text` shows up after what was waited for last."""
        deadline = time.monotonic() + seconds
        while text not in self.shown[self._seen :]:
            assert time.monotonic() < deadline, f"no {text!r} in {self.shown!r}"
            self._read(0.2)
        self._seen = self.shown.index(text, self._seen) + len(text)

    def type(self, text):
        os.write(self.master, text.encode())

    def leave(self, seconds=15):
        deadline = time.monotonic() + seconds
        while self.program.poll() is None:
            assert time.monotonic() < deadline, f"still there: {self.shown!r}"
            self._read(0.1)
        return self.program.returncode

    def _read(self, seconds):
        if select.select([self.master], [], [], seconds)[0]:
            try:
                self.raw += os.read(self.master, 4096).decode()
            except OSError:  # the program has left
                time.sleep(0.05)


@pytest.fixture
def terminal():
    opened = []

    def open_terminal(*args, script=("Fine, thanks.",), stdout=None, **env):
        opened.append(Terminal(*args, stdout=stdout, FAKE_SCRIPT=json.dumps(script), **env))
        return opened[-1]

    yield open_terminal
    for one in opened:
        if one.program.poll() is None:
            one.program.kill()
        one.program.wait()
        os.close(one.master)


def test_a_session_greets_answers_and_leaves_at_ctrl_d(terminal):
    screen = terminal(script=["Hello to you.", "Still fine."])
    screen.wait_for("Stacy is ready: ")
    screen.wait_for("Stacy: Yo, I'm Stacy")
    screen.wait_for("User: ")
    screen.type("Hi\n")
    screen.wait_for("Stacy: Hello to you.\n")
    screen.wait_for("User: ")
    screen.type("How are you?\n")
    screen.wait_for("Stacy: Still fine.\n")
    screen.wait_for("User: ")
    screen.type("\x04")
    assert screen.leave() == 0
    assert "Traceback" not in screen.shown


def test_ctrl_c_stops_the_answer_and_keeps_the_session(terminal):
    screen = terminal(script=[["One", *[" more"] * 400], "Back again."], FAKE_PAUSE="0.02")
    screen.wait_for("User: ")
    screen.type("Count\n")
    screen.wait_for("One more more")
    screen.type("\x03")
    screen.wait_for("(stopped)")
    screen.wait_for("User: ")
    screen.type("And now?\n")
    screen.wait_for("Stacy: Back again.")
    screen.wait_for("User: ")
    screen.type("\x03")  # at the prompt it only clears the line
    screen.wait_for("Ctrl-D or /exit leaves")
    screen.type("/exit\n")
    assert screen.leave() == 0


def test_the_commands_answer(terminal):
    screen = terminal()
    screen.wait_for("User: ")
    screen.type("/help\n")
    screen.wait_for("/reset")
    screen.wait_for("User: ")
    screen.type("/context\n")
    screen.wait_for("1024 tokens")
    screen.wait_for("recent 0")
    screen.wait_for("User: ")
    screen.type("Hi\n")
    screen.wait_for("Fine, thanks.")
    screen.wait_for("User: ")
    screen.type("/reset\n")
    screen.wait_for("forgotten")
    screen.wait_for("User: ")
    screen.type("/nonsense\n")
    screen.wait_for("there is no /nonsense")
    screen.wait_for("User: ")
    screen.type("/quit\n")
    assert screen.leave() == 0


@pytest.mark.parametrize("env, colour", [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colour_is_for_terminals_that_want_it(terminal, env, colour):
    screen = terminal(**env)
    screen.wait_for("User: ")
    screen.type("Hi\n")
    screen.wait_for("Fine, thanks.")
    screen.wait_for("User: ")
    screen.type("\x04")
    screen.leave()
    assert bool(re.search(r"\x1b\[[0-9;]+m", screen.raw)) == colour


def test_with_stdout_elsewhere_only_answers_go_there(terminal, tmp_path):
    with open(tmp_path / "out", "w") as out:
        screen = terminal(stdout=out)
        screen.wait_for("User: ")
        screen.type("Hi\n")
        screen.wait_for("User: ")
        screen.type("\x04")
        assert screen.leave() == 0
    assert (tmp_path / "out").read_text() == "Fine, thanks.\n"
