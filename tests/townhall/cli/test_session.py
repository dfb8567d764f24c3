"""The session at a real (pseudo-)terminal: what a person would see, told by the screen."""

import json
import os
import re
import signal
import sys

import pytest

from tests.townhall.cli.screen import ALT_ENTER, BACKSPACE, CTRL_C, CTRL_D, CTRL_J, ENTER, LEFT, Terminal
from townhall.logbook.log_reader import read_log

pytestmark = pytest.mark.slow


@pytest.fixture
def terminal():
    opened = []

    def open_terminal(*args, script=("Fine, thanks.",), **options):
        command = [sys.executable, "-m", "tests.townhall.cli.fake_townhall", "chat", *args]
        opened.append(Terminal(command, FAKE_SCRIPT=json.dumps(script), **options))
        return opened[-1]

    yield open_terminal
    for one in opened:
        one.close()


def turns(tmp_path):
    (path,) = (tmp_path / "user_data" / "townhall" / "logs").glob("*.md")
    return [turn.text for turn in read_log(path).turns]


def test_a_session_greets_answers_and_leaves_at_ctrl_d(terminal):
    screen = terminal(script=["Hello to you.", "Still fine."])
    screen.say("Hi", "Stacy: Hello to you.")
    screen.say("How are you?", "Stacy: Still fine.")
    screen.prompt()
    screen.type(CTRL_D)
    assert screen.leave() == 0
    assert re.fullmatch(
        r"Stacy is ready: \d+ tokens in [\d.]+ s\nStacy: Yo, I'm Stacy, .*\nUser: Hi\nStacy: Hello to you.\nUser: How are you\?\n"
        r"Stacy: Still fine.\nUser:",
        screen.text(),
    ), screen.text()


def test_ctrl_c_stops_the_answer_and_keeps_the_session(terminal):
    screen = terminal(script=[["One", *[" more"] * 400], "Back again."], FAKE_PAUSE="0.02")
    screen.say("Count", "One more more")
    screen.type(CTRL_C, CTRL_C)  # quick fingers
    screen.wait_for("(stopped)")
    screen.say("And now?", "Stacy: Back again.")
    screen.prompt()
    screen.type("half a line")
    screen.wait_for("half a line")
    screen.type(CTRL_C)  # at the prompt it only clears the line
    screen.wait_for("(Ctrl-D or /exit leaves)")
    screen.prompt()
    screen.type(CTRL_C, CTRL_C, "/exit", ENTER)
    assert screen.leave() == 0
    assert screen.text().count("leaves)") == 1 and "half" not in screen.text()


def test_a_second_ctrl_c_ends_what_the_first_cannot(chat, tmp_path):
    screen = chat(replies=[{"text": "Never said.", "prefill": 60}, "Back again."])
    screen.say("Hi")

    def stopped():
        screen.type(CTRL_C)
        return "(stopped)" in screen.text()

    screen.wait(stopped)
    screen.say("And now?", "Stacy: Back again.")
    screen.prompt()
    screen.type(CTRL_D)
    assert screen.leave() == 0 and turns(tmp_path)[-2:] == ["And now?", "Back again."]


def test_a_long_prompt_is_counted_while_it_is_read_and_one_ctrl_c_ends_that(terminal):
    screen = terminal("--timing", FAKE_READ="0.7")
    screen.prompt()
    screen.paste("word " * 500)
    screen.type(ENTER)
    screen.wait_for("Stacy is reading: ")
    screen.type(CTRL_C)
    screen.wait_for("Stacy:\n(stopped)\nUser:")
    assert "reading" not in screen.text() and "cached" not in screen.text()


def test_a_ctrl_c_that_is_heard_late_costs_nothing_that_was_typed_since(terminal):
    screen = terminal()
    screen.wait_for("User: say something")  # the editor reads
    for number in (signal.SIGSTOP, signal.SIGINT):  # it was sent before the keys, and both are found at once
        screen.program.send_signal(number)
    screen.type("And now?")
    screen.program.send_signal(signal.SIGCONT)
    screen.wait(lambda: screen.row() == "User: And now?")
    assert "leaves)" not in screen.text()


def test_the_commands_answer(terminal):
    screen = terminal()
    screen.say("/help", "/reset  ")
    screen.say("/context", "1024 tokens", "recent 0")
    screen.say("Hi", "Fine, thanks.")
    screen.say("/reset", "forgotten")
    screen.say("/nonsense", "there is no /nonsense")
    screen.say("/quit")
    assert screen.leave() == 0


COLOUR = re.compile(rb"\x1b\[[0-9;]*[1-9][0-9;]*m")


@pytest.mark.parametrize(
    "env, colour",
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False), ({"CLICOLOR": "0"}, False)]
    + [({"TERM": "dumb"}, False), ({"TERM": "dumb", "FORCE_COLOR": "1"}, True)],
)
def test_colour_is_for_terminals_that_want_it(terminal, env, colour):
    screen = terminal(**env)
    screen.say("Hi", "Fine, thanks.")
    screen.prompt()
    screen.type(CTRL_D)
    screen.leave()
    assert bool(COLOUR.search(screen.raw)) == colour


def test_a_simple_terminal_gets_plain_lines_and_hears_nothing_of_it(chat):
    screen = chat(TERM="dumb", replies=["A \x1b[31mred\x1b[0m word."])
    screen.say("Hi", "Stacy: A \N{REPLACEMENT CHARACTER}[31mred")
    screen.prompt()
    screen.type(CTRL_C)
    screen.wait_for("(Ctrl-D or /exit leaves)")
    screen.prompt()
    screen.type(CTRL_D)
    assert screen.leave() == 0
    assert b"\x1b" not in screen.raw and "help" not in screen.text()


def test_with_stdout_elsewhere_only_answers_go_there(terminal, tmp_path):
    with open(tmp_path / "out", "w") as out:
        screen = terminal(stdout=out)
        screen.prompt()
        screen.type("Hi\n")
        screen.wait(lambda: screen.text().count("User:") == 2)
        screen.type(CTRL_D)
        assert screen.leave() == 0
    assert (tmp_path / "out").read_text() == "Fine, thanks.\n"


def test_several_lines_are_one_message(chat, tmp_path):
    screen = chat("--model", "fake:echo")
    screen.prompt()
    screen.type("one", ALT_ENTER, "two", CTRL_J, "three")
    screen.wait_for("User: one\n      two\n      three")
    screen.type(ENTER)
    screen.wait_for("Stacy: one\ntwo\nthree")
    screen.prompt()
    rows = "\n".join(f"row {n} of a paste" for n in range(30))
    screen.paste(rows)
    screen.wait_for("row 29 of a paste")
    screen.type(ENTER)
    screen.wait(lambda: screen.text().count("row 29 of a paste") == 2)
    screen.prompt()
    screen.type(CTRL_D)
    screen.leave()
    assert turns(tmp_path) == ["one\ntwo\nthree"] * 2 + [rows] * 2


def test_thoughts_show_dim_above_the_answer_and_stand_in_the_log(terminal, tmp_path):
    screen = terminal(script=["<think>Two and\ntwo.</think>\n\nFour."])
    screen.say("2 + 2?", "Two and\ntwo.\nStacy: Four.")
    assert b"\x1b[2m" in screen.raw
    screen.prompt()
    screen.type(CTRL_D)
    assert screen.leave() == 0
    assert turns(tmp_path) == ["2 + 2?", "Four."]
    (path,) = (tmp_path / "user_data" / "townhall" / "logs").glob("*.md")
    assert read_log(path).turns[1].facts["reasoning"] == "Two and\ntwo."


def test_what_is_typed_ahead_waits_for_the_prompt_and_does_not_show_in_the_answer(chat, tmp_path):
    screen = chat("--model", "fake:echo", replies=())
    screen.type("typed while it loads", ENTER)
    screen.wait_for("Stacy: typed while it loads")
    screen.say("x " * 200)
    screen.paste("pasted ahead\nin two lines")
    screen.type(ENTER, "and a rest")
    screen.wait_for("Stacy: pasted ahead\nin two lines", "User: and a rest")
    assert screen.text().count("and a rest") == 1
    screen.type(ENTER)
    screen.prompt()
    screen.type(CTRL_D)
    assert screen.leave() == 0
    assert turns(tmp_path)[::2] == ["typed while it loads", "x " * 200, "pasted ahead\nin two lines", "and a rest"]


def test_a_terminal_that_vanishes_loses_nothing_of_what_was_shown(chat, tmp_path):
    screen = chat(replies=["All said.", "One" + " more" * 1000], pause=0.02)
    screen.say("First", "All said.")
    screen.say("Count", "One more more")
    screen.hang_up()
    assert screen.program.wait(60) in (128 + signal.SIGHUP, 1)  # the word of it may come later than the failure to write
    first, answer, second, stopped = turns(tmp_path)
    assert (first, answer, second) == ("First", "All said.", "Count") and stopped.startswith("One more more")


def test_sigterm_keeps_the_answer_and_leaves_the_terminal_as_it_was(chat, tmp_path):
    import termios

    screen = chat(replies=["One" + " more" * 1000], pause=0.02)
    screen.say("Count", "One more more")
    screen.program.send_signal(signal.SIGTERM)
    assert screen.leave() == 128 + signal.SIGTERM
    assert turns(tmp_path)[1].startswith("One more more")
    local = termios.tcgetattr(screen.slave)[3]
    assert local & termios.ECHO and local & termios.ICANON


def test_the_size_may_change_while_somebody_types(chat):
    screen = chat("--model", "fake:echo")
    screen.prompt()
    screen.type("words that are typed before the window")
    screen.wait_for("before the window")
    screen.resize(40, 20)
    screen.type(" is narrow")
    screen.wait_for("narrow")
    screen.type(ENTER)
    screen.wait_for("Stacy: words that are typed before the\nwindow is narrow")


def test_a_stopped_program_gives_the_terminal_back_and_goes_on(chat):
    import termios

    screen = chat(replies=["One two three" + " more" * 50 + " end."], pause=0.02)
    screen.say("Count", "One two three")
    os.kill(screen.program.pid, signal.SIGTSTP)
    screen.wait(lambda: os.waitpid(screen.program.pid, os.WUNTRACED | os.WNOHANG)[0])
    assert termios.tcgetattr(screen.slave)[3] & termios.ECHO
    os.kill(screen.program.pid, signal.SIGCONT)
    screen.wait_for("end.")
    screen.prompt()
    assert not termios.tcgetattr(screen.slave)[3] & termios.ECHO


def test_a_whole_session_as_a_person_sees_it(chat):
    """Type, edit a prefilled line, interrupt, retry, switch the persona, leave."""
    replies = [
        "The mun is far.",
        "The moon is 384,400 km away.",
        "One two three" + " and so on" * 200,
        "In short: three.",
        "Sir Gary, at your service.",
    ]
    screen = chat(replies=replies, pause=0.02)
    screen.say("How far is the mun?", "Stacy: The mun is far.\nUser:")
    screen.say("/edit")
    screen.wait(lambda: screen.row() == "User: How far is the mun?")
    screen.type(LEFT * 2, BACKSPACE, "oo", ENTER)
    screen.wait_for("User: How far is the moon?\nStacy: The moon is 384,400 km away.\nUser:")
    screen.say("Count", "One two three and so on and so on")
    screen.type(CTRL_C)
    screen.say("/retry", "User: /retry\nStacy: In short: three.\nUser:")
    screen.say("/persona gary", "Gary: ")
    screen.say("Who are you?", "Gary: Sir Gary, at your service.\nUser:")
    screen.say("/exit")
    assert screen.leave() == 0
    _, greeting, rest = re.sub(r"(Stacy: One two three)( |and|so|on|\n)*(?=\(stopped\))", r"\1 …\n", screen.text()).partition("Stacy: Yo")
    assert (
        greeting + rest
        == """Stacy: Yo, I'm Stacy, lil stacy on the mic. Ask me anything!
User: How far is the mun?
Stacy: The mun is far.
User: /edit
User: How far is the moon?
Stacy: The moon is 384,400 km away.
User: Count
Stacy: One two three …
(stopped)
User: /retry
Stacy: In short: three.
User: /persona gary
Gary is here, and the talk begins anew; the model is the one that was loaded
Gary: Welcome to Gary's Quality Motors! What can I do for you today?
User: Who are you?
Gary: Sir Gary, at your service.
User: /exit"""
    )
