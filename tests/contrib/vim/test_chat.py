"""contrib/vim/chat.vim in a real vim, beside a real `townhall watch`. Skipped where there is no vim: it is the reader's, not ours."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.townhall.cli.screen import Terminal
from tests.townhall.watch.room import eventually

PLUGIN = Path(__file__).resolve().parents[3] / "contrib" / "vim" / "chat.vim"
VIM = shutil.which("vim")
PLAIN = [VIM or "vim", "-N", "-u", "NONE", "-i", "NONE", "-n"]
ESC, ENTER = "\x1b", "\r"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(VIM is None, reason="vim is not installed (Debian and Ubuntu: apt install vim)"),
    pytest.mark.skipif(
        VIM is not None and "+timers" not in subprocess.run([VIM, "--version"], capture_output=True, text=True).stdout,
        reason="this vim was built without timers",
    ),
]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "talk.chat"


@pytest.fixture
def home(tmp_path):
    """A person's home, with the plugin where its first lines say that it goes."""
    folder = tmp_path / "home" / ".vim" / "plugin"
    folder.mkdir(parents=True)
    (folder / "chat.vim").symlink_to(PLUGIN)
    (tmp_path / "home" / ".vimrc").write_text("set nocompatible nomodeline\nsyntax on\n")
    return tmp_path / "home"


@pytest.fixture
def vim(path, home):
    """vim on the file, as a person has it."""
    opened = []

    def open(*args):
        at = Terminal([VIM, "-n", "-i", "NONE", *args, str(path)], HOME=str(home), TERM="vt220", columns=100)
        opened.append(at)
        return at

    yield open
    for at in opened:
        at.close()


@pytest.fixture
def watch(path, tmp_path):
    """`townhall watch` on the file, started with further flags; stopped at the end."""
    started = []

    def start(*flags):
        info = (tmp_path / "told").open("w+")
        program = subprocess.Popen(
            [sys.executable, "-m", "townhall", "watch", str(path), *(flags or ["--model", "fake:echo"])], stderr=info, stdout=info
        )
        started.append((program, info))
        eventually(lambda: "is watched" in (tmp_path / "told").read_text() or program.poll() is not None)
        assert program.poll() is None, (tmp_path / "told").read_text()

    yield start
    for program, info in started:
        program.terminate()
        program.wait()
        info.close()


def asked(path, *expressions):
    """What vim answers to expressions about the file, each on a line of its own."""
    out = path.with_name("out")
    report = f"call writefile(map([{', '.join(expressions)}], 'v:val . \"\"'), '{out}')"
    script = ["--cmd", "syntax on", "--cmd", f"source {PLUGIN}", str(path), "-c", report, "-c", "qa!"]
    done = subprocess.run([*PLAIN, "-es", *script], capture_output=True, timeout=60, env=os.environ | {"TERM": "dumb"})
    assert out.exists(), done
    return out.read_text().splitlines()


def test_a_chat_is_recognised_folded_by_turns_and_coloured(path):
    path.write_text("---\nseed: 1\n---\nUser: Hi\n\nStacy: Ho\nho\nDr. User: no turn\n\nUser: ")
    assert asked(path, "&filetype", "&autoread", "&foldmethod", "foldclosed(4)") == ["chat", "1", "expr", "-1"]
    starts = [f"foldlevel({n}) . ' ' . ChatFold({n}) . ' ' . synIDattr(synID({n}, 1, 1), 'name')" for n in range(1, 11)]
    found = [line.split(" ") for line in asked(path, *starts)]
    assert [level for level, _, _ in found] == ["1"] * 10
    assert [n for n, (_, fold, _) in enumerate(found, 1) if fold == ">1"] == [1, 4, 6, 10]
    assert [colour for _, _, colour in found] == ["chatSettings"] * 3 + ["chatUser", "", "chatPersona", "", "", "", "chatUser"]


def test_other_files_are_left_alone(path):
    path = path.with_suffix(".txt")
    path.write_text("User: Hi\n")
    assert asked(path, "&filetype ==# 'chat'", "&foldmethod", "exists(':ChatSend')") == ["0", "manual", "0"]


def test_names_that_one_plays_with_are_ones_own_to_set(path):
    path.write_text("Me: Hi\n\nDr. No: Ho\n")
    (own := path.with_name("own.vim")).write_text("let g:chat_names = ['Me', 'Dr. No']\n")
    out = path.with_name("out")
    report = f"call writefile(map(range(1, 3), 'ChatFold(v:val)'), '{out}')"
    subprocess.run([*PLAIN, "-es", "--cmd", f"source {own}", "--cmd", f"source {PLUGIN}", str(path), "-c", report, "-c", "qa!"], timeout=60)
    assert out.read_text().split() == [">1", "=", ">1"]


def test_a_turn_is_answered_in_the_buffer_and_the_cursor_waits_at_the_end(path, vim, watch):
    path.write_text("")
    watch()
    at = vim()
    at.wait_for("User:")
    at.type("A", "How far is the moon?", ESC, "\\", ENTER)
    at.wait_for("Stacy: How far is the moon?")
    at.wait(lambda: at.row() == "User:" and at.screen.cursor.y == 4)
    assert path.read_text() == "User: How far is the moon?\n\nStacy: How far is the moon?\n\nUser: "
    at.type("A", "And back?", "\x07", ENTER)  # sent without leaving the insert mode …
    at.wait_for("Stacy: And back?")
    at.wait(lambda: at.row() == "User:" and at.screen.cursor.y == 8)
    at.type("Thanks.", ESC, ":w", ENTER)  # … so that one goes on typing
    at.wait_for("Stacy: Thanks.")
    at.type(":q", ENTER)
    assert at.leave() == 0
    assert path.read_text().endswith("\n\nUser: Thanks.\n\nStacy: Thanks.\n\nUser: ")


def test_a_file_that_is_made_after_vim_has_opened_it_is_loaded_without_a_question(path, vim, watch):
    at = vim()
    at.wait_for("[New]")
    watch()
    at.wait(lambda: at.row() == "User:")
    at.type("A", "Hello there", ESC, "\\", ENTER)
    at.wait_for("Stacy: Hello there")
    at.wait(lambda: at.row() == "User:")
    assert path.read_text() == "User: Hello there\n\nStacy: Hello there\n\nUser: "


def test_a_reply_that_precedes_vims_look_at_its_save_is_loaded(path, vim):
    """On a slow disk vim may take the reply's time for its own: it knows of no change then, and here it is told to want to know of none."""
    path.write_text("User: Größe\n")
    ignorant = ("setlocal noautoread", "autocmd! FileChangedShell", "autocmd FileChangedShell * let v:fcs_choice = ''")
    at = vim(*(word for command in ignorant for word in ("-c", command)))
    at.wait_for("User: Größe")
    path.write_text("User: Größe\n\nStacy: Groß\n\nUser: ")
    at.wait_for("Stacy: Groß")
    at.wait(lambda: at.row() == "User:")


@pytest.mark.parametrize("backupcopy", ["yes", "no", "auto"])
def test_an_edit_above_is_heard_however_vim_saves(path, vim, watch, backupcopy):
    path.write_text("User: One\n\nStacy: One\n\nUser: Two")
    at = vim("--cmd", f"set backupcopy={backupcopy}")
    at.wait_for("User: Two")
    at.type(":1s/One/Uno/", ENTER, ":w", ENTER)
    eventually(lambda: path.read_text() == "User: Uno\n\nStacy: One\n\nUser: Two\n")
    watch()
    at.wait_for("Stacy: Two")
    at.type("/Stacy: Two", ENTER, "0WCTwo and a half", ESC, "GA", "Three", ESC, "\\", ENTER)
    at.wait_for("Stacy: Three")
    at.wait(lambda: at.row() == "User:")
    assert path.read_text() == "User: Uno\n\nStacy: One\n\nUser: Two\n\nStacy: Two and a half\n\nUser: Three\n\nStacy: Three\n\nUser: "


def test_what_is_typed_while_the_file_grows_is_not_lost(path, vim, watch, tmp_path):
    (tmp_path / "slow.yaml").write_text("pause: 0.02\nreplies: ['" + "more " * 300 + "']\n")
    path.write_text("User: One\n")
    at = vim()
    at.wait_for("User: One")
    at.type("A", "!")
    watch("--model", f"fake:script={tmp_path / 'slow.yaml'}")
    at.wait_for("was written to meanwhile")
    assert "User: One!" in at.text() and "more" not in at.text()
    at.type(ESC, ":w", ENTER)
    at.wait_for("Do you really want to write to it (y/n)?")
    at.type("y")  # the reader's own version wins, and is answered
    eventually(lambda: path.read_text().startswith("User: One!\n\nStacy: more more"))
