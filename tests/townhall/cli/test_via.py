"""`townhall chat --via` as a program: exit codes, what is said where, logs, replay, and the rewritten question at a terminal."""

import json
import os
import subprocess
import sys
import threading

import pytest

from tests.townhall.cli.screen import BACKSPACE, CTRL_C, CTRL_D, ENTER
from tests.townhall.via.misbehaving import Misbehaving, fails, says
from townhall.cli.main import main
from townhall.logbook.log_reader import read_log

pytestmark = pytest.mark.slow


@pytest.fixture
def talk(tmp_path):
    """talk(url, *flags, stdin=…): a pipe over a double that says "Local words."; (exit code, stdout, stderr)."""
    script = tmp_path / "local.yaml"
    script.write_text("replies: ['Local words.', 'More local words.']\n")

    def run(url, *flags, stdin="Hi\n", **env):
        command = [sys.executable, "-m", "townhall", "chat", "--model", f"fake:script={script}", "--via", url, "--via-model", "big", *flags]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, env={**os.environ, **env}, timeout=120)
        return done.returncode, done.stdout, done.stderr

    return run


def logs(tmp_path):
    return sorted((tmp_path / "user_data" / "townhall" / "logs").glob("*.md"))


def test_the_log_says_who_answered_and_a_replay_does_not_pretend(talk, tmp_path, capfd):
    with Misbehaving(says("Remote", " words."), fails(401), fails(503), fails(503), fails(503), says("Back.")) as server:
        code, out, err = talk(server.url, "--json", stdin="One\nTwo\nThree\nFour\n", TOWNHALL_VIA_KEY="sesame")
    first, refused, local, back = map(json.loads, out.splitlines())
    assert code == 2 and "refused the key" in refused["error"] and "refused the key of TOWNHALL_VIA_KEY (401)" in err
    assert first["text"] == "Remote words." and first["receipt"]["sent"]["server_tokens"] == 50
    assert local["text"] == "Local words." and "sent" not in local["receipt"] and "the local model answers:" in err
    (log,) = logs(tmp_path)
    assert "sesame" not in log.read_text() + out + err
    turns = read_log(log).turns
    assert [turn.text for turn in turns] == ["One", "Remote words.", "Three", "Local words.", "Four", "Back."]
    assert turns[1].facts["via"]["model"] == "big" and "tokens" not in turns[1].facts and "tokens" in turns[3].facts
    assert main(["replay", str(log)]) == 0
    out, err = capfd.readouterr()
    assert out == "1 reply, 3 tokens: all the same\n" and "2 replies of another server's model" in err
    assert main(["replay", str(log), "--json"]) == 0
    figures = json.loads(capfd.readouterr()[0])
    assert (figures["of"], figures["replies"], figures["kept"], figures["difference"]) == (1, 1, 2, None)


def test_a_broken_answer_is_kept_and_the_exit_code_says_so(talk, tmp_path):
    with Misbehaving(says("Half of", " it", finish=None)) as server:
        code, out, err = talk(server.url)
    assert code == 2 and out == "Half of it\n" and "broke off in the middle" in err
    assert read_log(logs(tmp_path)[0]).turns[-1].facts["finish_reason"] == "interrupted"


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--via-model", ""], "--via-model NAME"),
        (["--via", "http://u:p@h/v1"], "without user name"),
        (["--via-price", "x"], "--via-price"),
        (["--via-key", "NO_SUCH_KEY"], "--via-key NO_SUCH_KEY"),
        (["--compress", "200", "--context", "slide"], "--compress keeps a memory"),
        (["--compress", "5"], "--compress"),
        (["--prompt", "x", "--via", "http://h/v1"], "--prompt"),
    ],
)
def test_what_cannot_be_meant_ends_in_one_sentence(capfd, flags, words):
    assert main(["chat", "--model", "fake:echo", "--via", "http://127.0.0.1:9/v1", "--via-model", "m", *flags]) == 2
    out, err = capfd.readouterr()
    assert out == "" and words in err and "u:p" not in err


@pytest.mark.parametrize("command", ["serve", "web"])
@pytest.mark.parametrize(
    "flags, words",
    [
        (["--via", "http://u:p@h/v1", "--via-model", "m"], "without user name"),
        (["--via", "http://127.0.0.1:9/v1"], "--via-model NAME"),
        (["--via", "http://127.0.0.1:9/v1", "--via-model", "m", "--via-price", "x"], "--via-price"),
        (["--via", "http://127.0.0.1:9/v1", "--via-model", "m", "--via-key", "NO_SUCH_KEY"], "--via-key NO_SUCH_KEY"),
        (["--via-model", "m"], "--via-model is of use where another server answers"),
        (["--via", "http://127.0.0.1:9/v1", "--via-model", "gary"], "--via-model gary is a persona's name"),
    ],
)
def test_a_server_refuses_what_cannot_be_meant_at_its_start(capfd, command, flags, words):
    assert main([command, "--model", "fake:echo", "--port", "0", *flags]) == 2
    out, err = capfd.readouterr()
    assert out == "" and words in err and "u:p" not in err


def test_cost_adds_up_the_session(chat):
    with Misbehaving(says("Fine.")) as server:
        screen = chat("--via", server.url, "--via-model", "big", "--via-price", "big=100/1000 USD", columns=140)
        screen.type("/cost", ENTER)
        screen.wait(lambda: "no other server has answered in this session" in screen.text())
        for line in ("One", "Two"):
            screen.prompt()
            screen.say(line, "Stacy: Fine.")
        screen.prompt()
        screen.type("/cost", ENTER)
        # each: 50 tokens at 100 and one at 1000 for a million
        host = server.url.removeprefix("http://").removesuffix("/v1")
        screen.wait(lambda: f"2 answers of big at {host}: 100 tokens sent, 2 answered; cost 0.012000 USD" in screen.text())
        screen.prompt()
        screen.type(CTRL_D)
        assert screen.leave() == 0


def test_flags_of_a_server_want_one(capfd):
    assert main(["chat", "--model", "fake:echo", "--compress", "200"]) == 2
    assert "--compress is of use where another server answers" in capfd.readouterr()[1]


def test_a_pipe_under_ask_sends_the_own_words_and_under_always_the_rewritten_ones(talk, tmp_path):
    lines = "What is the capital of Spain?\nand of Italy?\n"
    with Misbehaving(says("Fine.")) as server:
        talk(server.url, "--enrich", "ask", stdin=lines)
        talk(server.url, "--enrich", "always", "--log-to", str(tmp_path / "b.md"), stdin=lines)
        asked = [body["messages"][-1]["content"] for _, body in server.asked]
    assert asked[1] == "and of Italy?" and asked[3] == "What is the capital of Italy?"
    turn = read_log(tmp_path / "b.md").turns[2]
    assert turn.text == asked[3] and turn.facts["enriched"] == {"own": "and of Italy?", "offered": asked[3]}


def test_at_a_terminal_the_rewritten_question_is_taken_changed_or_refused(chat, tmp_path):
    with Misbehaving(says("Fine.")) as server:
        screen = chat("--via", server.url, "--via-model", "big", "--enrich", "ask", columns=110)
        screen.say("What is the capital of Spain?", "Stacy: Fine.")
        for country, keys in (("Italy", [ENTER]), ("France", [f"{BACKSPACE} now?", ENTER]), ("Greece", [CTRL_C, ENTER])):
            screen.prompt()
            screen.type(f"and of {country}?", ENTER)
            screen.wait(lambda country=country: screen.row() == f"User: What is the capital of {country}?")
            screen.type(keys[0])
            if keys[1:]:
                cleared = keys[0] == CTRL_C
                screen.wait(lambda cleared=cleared: screen.row() == "User:" if cleared else screen.row().endswith("now?"))
                screen.type(keys[1])
            screen.wait(lambda: screen.row() == "User:" and screen.text().rstrip().endswith("User:") and len(server.asked) > 1)
        screen.prompt()
        screen.type(CTRL_D)
        assert screen.leave() == 0
        asked = [body["messages"][-1]["content"] for _, body in server.asked]
    assert asked[1:] == ["What is the capital of Italy?", "What is the capital of France now?", "and of Greece?"]
    (log,) = logs(tmp_path)
    words = [{"own": f"and of {name}?", "offered": f"What is the capital of {name}?"} for name in ("Italy", "France", "Greece")]
    assert [turn.facts.get("enriched") for turn in read_log(log).turns if turn.role == "user"] == [None, *words]
    assert "this can be understood alone" in screen.text()


def test_ctrl_c_ends_the_wait_for_a_silent_server(chat):
    over = threading.Event()
    with Misbehaving(lambda handler: over.wait(), says("Back again.")) as server:
        screen = chat("--via", server.url, "--via-model", "big")
        screen.prompt()
        screen.type("Hi", ENTER)
        screen.wait(lambda: len(server.asked) == 1)
        screen.type(CTRL_C)
        screen.wait_for("(stopped)")
        screen.say("And now?", "Stacy: Back again.")
        screen.type(CTRL_D)
        assert screen.leave() == 0
        over.set()
