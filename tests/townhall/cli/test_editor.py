"""The line at a terminal: the menu, history, and what a person edits."""

import os
import subprocess
import sys

import pytest

from tests.townhall.cli.screen import BACKSPACE, CTRL_C, CTRL_D, CTRL_R, DOWN, END, ENTER, HOME, TAB, UP

pytestmark = pytest.mark.slow


def leave(screen):
    screen.prompt()
    screen.type(CTRL_D)
    assert screen.leave() == 0


def test_a_slash_offers_the_commands_with_their_help(chat):
    screen = chat()
    screen.prompt()
    screen.type("/")
    screen.wait_for("/swipe", "list the replies to the last message")
    screen.type("conte", TAB)
    screen.wait(lambda: screen.row().startswith("User: /context"))
    screen.type(" f", TAB, ENTER)
    screen.wait_for("User: /context full")
    leave(screen)
    assert "list the replies" not in screen.text()  # the menu leaves nothing behind


def test_enter_takes_what_is_chosen_and_sends_it_only_then(chat):
    screen = chat()
    screen.prompt()
    screen.type("/persona g")
    screen.wait_for("gary", "george")
    screen.type(DOWN, DOWN)
    screen.wait(lambda: screen.row() == "User: /persona george")
    screen.type(ENTER)
    screen.wait(lambda: "gary" not in screen.text())
    screen.type(ENTER)
    screen.wait_for("George: ")
    leave(screen)


def test_paths_and_settings_are_completed(chat, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "small one.gguf").touch()
    (tmp_path / "models" / "notes.txt").touch()
    screen = chat(columns=200)
    screen.prompt()
    screen.type(f"/model {tmp_path}/mod", TAB)
    screen.wait(lambda: screen.row().endswith("/models/"))
    screen.type("s", TAB)
    screen.wait(lambda: screen.row().endswith("/models/small one.gguf"))
    screen.type(CTRL_C)
    screen.wait(lambda: "small" not in screen.text())
    (tmp_path / "models" / "tom.yaml").touch()
    screen.type(f"/persona {tmp_path}/models/", TAB)
    screen.wait(lambda: screen.row().endswith("/models/tom.yaml"))
    screen.type(CTRL_C)
    screen.wait(lambda: "tom" not in screen.text())
    screen.type("/settings tempe", TAB)
    screen.wait(lambda: screen.row() == "User: /settings temperature")
    screen.type(CTRL_C)
    screen.wait(lambda: "temperature" not in screen.text())
    screen.type("/settings timing t", TAB)
    screen.wait(lambda: screen.row() == "User: /settings timing true")
    screen.type(CTRL_C)
    leave(screen)


def test_lines_are_there_in_the_next_session(chat):
    first = chat()
    for line in ("the first line", "the second line"):
        first.say(line)
    leave(first)
    quiet = chat("--no-log")
    quiet.say("a secret")
    leave(quiet)
    second = chat()
    second.prompt()
    second.type(UP)
    second.wait(lambda: second.row() == "User: the second line")
    second.type(UP)
    second.wait(lambda: second.row() == "User: the first line")
    second.type(DOWN, DOWN)
    second.prompt()
    second.type(CTRL_R, "FIRST")
    second.wait_for("User: the first line")
    second.type(ENTER)
    second.wait(lambda: second.row() == "User: the first line")
    second.type(END, BACKSPACE * 4, "word", HOME, "once more ", ENTER)
    second.wait_for("User: once more the first word\nStacy: Fine, thanks.")
    leave(second)


def test_a_menu_does_not_come_up_in_a_message(chat):
    screen = chat("--model", "fake:echo")
    screen.say("either/or and 1/2", "Stacy: either/or and 1/2")
    leave(screen)
    assert "/persona" not in screen.text()


def test_the_editor_is_imported_only_where_somebody_types():
    code = "from townhall.cli.main import main; import sys; code = main(['chat', '--model', 'fake:echo', '--markdown', '--no-log'])"
    code += "\nassert not {'prompt_toolkit', 'rich'} & set(sys.modules); sys.exit(code)"
    done = subprocess.run([sys.executable, "-c", code], input="Hi\n**Ho**\n", capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "Hi\n**Ho**\n"), done.stderr


def test_a_long_message_may_be_written_in_an_editor(chat, tmp_path):
    script = tmp_path / "editor.sh"
    script.write_text('#!/bin/sh\necho "written elsewhere" > "$1"\n')
    script.chmod(0o755)
    screen = chat("--model", "fake:echo", EDITOR=str(script), VISUAL="")
    screen.prompt()
    screen.type("begun here")
    screen.wait_for("begun here")
    screen.type("\x18\x05")
    screen.wait_for("User: written elsewhere\nStacy: written elsewhere")  # as in a shell: what the editor saves is sent
    leave(screen)


@pytest.mark.parametrize("term", ["xterm-256color", "dumb"])
def test_keys_that_are_no_utf8_end_nothing(chat, term):
    screen = chat("--model", "fake:echo", TERM=term)
    screen.prompt()
    os.write(screen.master, b"a\xff\xc3b\r")
    screen.wait_for("Stacy: a")
    leave(screen)
