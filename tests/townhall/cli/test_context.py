"""What a user sees of the window: receipts, the bar, the whole history, and notes that are taken between the turns."""

import json
import os
import re
import subprocess
import sys

import pytest

from tests.townhall.cli.test_session import terminal  # noqa: F401  (a fixture)

pytestmark = pytest.mark.slow

TELL = "My name is Tom and I live in Lisbon with a dog and with three boats, of which two leak."


def chat(*args, stdin, script=("Fine, and there is a lot more to say about that, as long as the day.",), **env):
    command = [sys.executable, "-m", "tests.townhall.cli.fake_townhall", "chat", "--max-context", "640", *args]
    environment = os.environ | {"FAKE_SCRIPT": json.dumps(script)} | env
    return subprocess.run(command, input=stdin, capture_output=True, text=True, env=environment, timeout=60)


@pytest.mark.parametrize("context", ["slide", "shift"])
def test_what_was_dropped_is_told_in_one_line_and_in_json(context):
    said = "".join(f"{number}: {TELL}\n" for number in range(20))  # exchanges that are alike would be found again in the cache
    plain = chat("--context", context, stdin=said)
    assert plain.returncode == 0 and plain.stdout.count("\n") == 20 and "context" not in plain.stdout
    lines = [line for line in plain.stderr.splitlines() if line.startswith(f"context ({context}): ")]
    objects = [json.loads(line) for line in chat("--context", context, "--json", stdin=said).stdout.splitlines()]
    receipts = [answer["receipt"] for answer in objects]
    dropped = [receipt for receipt in receipts if receipt["dropped"]]
    assert len(receipts) == 20 and len(dropped) == len(lines) >= 2
    for receipt, line in zip(dropped, lines, strict=True):
        assert f"{len(receipt['dropped'])} oldest messages ({receipt['dropped_tokens']} tokens) left the window of 640" in line
        assert f"{receipt['prompt_tokens']} tokens, {receipt['pinned_tokens']} of them pinned" in line
        assert ("read again" in line) == (receipt["recomputed_tokens"] > 0)
    assert any(receipt["recomputed_tokens"] for receipt in receipts) == (context == "slide")
    ids = [id for receipt in dropped for id in receipt["dropped"]]
    assert ids == list(range(len(ids)))
    assert all(receipt["strategy"] == context and receipt["window"] == 640 for receipt in receipts)


def test_the_commands_work_in_a_pipe_and_what_only_looks_like_one_is_said():
    done = chat(stdin=f"/context\n{TELL}\n" + f"{TELL}\n" * 12 + "/context\n/context full\n/etc/passwd is a file\n/exit\nnever said\n")
    assert done.returncode == 0 and done.stdout.count("\n") == 14
    bars = re.findall(r"^\[([#m=r.]{48})\] 640 tokens$", done.stderr, re.MULTILINE)
    assert len(bars) == 3 and "=" not in bars[0] and "=" in bars[1] and all(bar.startswith("#") for bar in bars)
    assert re.search(r"^out of the window: \d+ messages, \d+ tokens\n  #0 User: My name is Tom", done.stderr, re.MULTILINE)
    assert "in the window: " in done.stderr and "#25 Stacy: Fine" in done.stderr


def test_ctrl_c_ends_the_notes_and_the_session_goes_on(terminal):  # noqa: F811
    screen = terminal("--max-context", "512", "--context", "summarize", script=[["Tom", *[" more"] * 40]], FAKE_PAUSE="0.02")
    for turn in range(1, 13):
        screen.say(TELL)
        screen.wait(
            lambda n=turn: "taking notes" in screen.text() or screen.text().count("Stacy: Tom more") == n and screen.row() == "User:"
        )
        if "taking notes" in screen.text():
            break
    screen.wait_for("Stacy is taking notes of what leaves the window: 0 of")
    screen.type("\x03")
    screen.wait_for("no memory was made of", "it was interrupted")
    screen.say("/context", "= recent")
    screen.say("And now?")
    screen.wait(lambda: screen.text().count("Stacy: Tom more") == turn + 1)
    screen.prompt()
    screen.type("\x04")
    assert screen.leave() == 0 and "Traceback" not in screen.text()
