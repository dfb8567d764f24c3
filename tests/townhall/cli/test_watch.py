"""`townhall watch` as a program: its flags, its signals, what it says where."""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.townhall.watch.room import eventually

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-m", "townhall", "watch", "--model", "fake:echo"]
ROOT = Path(__file__).resolve().parents[3]


def once(*args, cwd=ROOT):
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([*COMMAND, "--once", *map(str, args)], capture_output=True, text=True, cwd=cwd, env=env)


@contextmanager
def watching(tmp_path, *args, command=COMMAND):
    """The program, ready; its standard error goes to the file whose path is its attribute `told`."""
    info = tmp_path / "told"
    with info.open("w") as errors:
        program = subprocess.Popen([*command, *map(str, args)], stdout=subprocess.PIPE, stderr=errors, text=True)
    program.info = info
    try:
        eventually(lambda: "is watched; Ctrl-C ends that" in info.read_text() or program.poll() is not None)
        yield program
    finally:
        program.kill()
        program.communicate()


@pytest.fixture
def slow(tmp_path):
    script = tmp_path / "slow.yaml"
    script.write_text("pause: 0.02\nreplies: ['" + "more " * 500 + "']\n")
    return ["--model", f"fake:script={script}", "--count", "1000", "--max-context", "4096"]


def test_once_answers_what_stands_there_and_says_what_was_cached(tmp_path):
    path = tmp_path / "a.chat"
    path.write_text("User: Hi\n")
    done = once("a.chat", cwd=tmp_path)
    assert (done.returncode, done.stdout, path.read_text()) == (0, "", "User: Hi\n\nStacy: Hi\n\nUser: ")
    assert done.stderr.splitlines()[-1] == "a.chat: 1 token to a prompt of 203: 194 cached, 9 read"
    again = once(path)
    assert again.returncode == 0 and again.stderr.splitlines()[-1] == f"{path}: there is nothing to answer"
    path.write_text("Hi\n")
    assert "it has no turns; begin yours with a line 'User: ...'" in once(path).stderr and path.read_text() == "Hi\n"


def test_once_answers_a_folder_and_its_code_tells_of_what_was_left(tmp_path):
    for name, text in {"a.chat": "User: Hi", "b.txt": "User: Ho", "c.chat": "User: \0"}.items():
        (tmp_path / name).write_text(text)
    done = once(tmp_path, "--json", "--seed", "1")
    assert done.returncode == 2 and "c.chat, line 1: a zero byte" in done.stderr
    info = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(one["file"], one["text"]) for one in info] == [(str(tmp_path / "a.chat"), "Hi"), (str(tmp_path / "b.txt"), "Ho")]
    assert [(tmp_path / name).read_text() for name in ("a.chat", "c.chat")] == ["User: Hi\n\nStacy: Hi\n\nUser: ", "User: \0"]


@pytest.mark.parametrize(
    "args, fault",
    [
        (["--once", "none.chat"], "none.chat does not exist; name a file or a folder"),
        (["none.doc"], "none.doc does not exist; name a file or a folder, or a new file that ends in .chat or .txt"),
        (["no/folder/a.chat"], "no/folder/a.chat cannot be made: No such file or directory"),
        (["a.chat", "--personality", "stayc"], "no persona is called 'stayc': did you mean stacy?"),
        (["a.chat", "--temperature", "-1"], "temperature"),
        (["a.chat", "--prompt", "x"], "No such option '--prompt'"),
    ],
)
def test_what_cannot_be_watched_is_said_in_a_sentence(tmp_path, args, fault):
    (tmp_path / "a.chat").write_text("User: Hi")
    done = subprocess.run([*COMMAND, *args], capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 2 and fault in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["a.chat"]


def test_settings_come_from_files_from_the_top_of_the_conversation_and_from_flags(tmp_path):
    (tmp_path / "mine.yaml").write_text("personality: gary\nseed: 5\n")
    path = tmp_path / "a.chat"
    path.write_text("User: Hi")
    once(path, "-c", tmp_path / "mine.yaml")
    assert "\n\nGary: Hi\n\nUser: " in path.read_text()
    path.write_text("---\npersonality: lexie\n---\nUser: Hi")
    once(path, "-c", tmp_path / "mine.yaml")
    assert "\n\nLexie: Hi\n\nUser: " in path.read_text()
    path.write_text("---\npersonality: lexie\n---\nUser: Hi")
    once(path, "--personality", "george")
    assert "\n\nGeorge: Hi\n\nUser: " in path.read_text()


def test_a_conversation_may_name_a_model_of_its_own_which_stays_loaded(tmp_path):
    (tmp_path / "wise.yaml").write_text("replies: ['So it is.']\n")
    (tmp_path / "echo.yaml").write_text("model: fake:echo\n")  # a flag would win over what a conversation says
    own, other = tmp_path / "a.chat", tmp_path / "b.chat"
    own.write_text("---\nmodel: fake:script=wise.yaml\n---\n")
    other.write_text("")
    with watching(tmp_path, tmp_path, "-c", tmp_path / "echo.yaml", command=COMMAND[:-2]) as program:
        for path, answer in ((own, "So it is."), (other, "Hi"), (own, "So it is."), (other, "Hi")):
            text = path.read_text()
            path.write_text(f"{text}{'' if text.endswith('User: ') else 'User: '}Hi")
            eventually(lambda path=path, text=text, answer=answer: path.read_text().endswith(f"Hi\n\nStacy: {answer}\n\nUser: "))
        info = program.info.read_text()
    assert info.count("fake:script=") == 1 and info.count("fake:echo: ") == 1  # each was loaded once
    assert not [line for line in info.splitlines() if line.startswith("townhall: ")]


def test_watched_conversations_are_in_no_logbook(tmp_path):
    (tmp_path / "a.chat").write_text("User: Hi")
    once(tmp_path / "a.chat")
    assert not (tmp_path / "user_data").exists()


def test_a_file_that_is_not_there_is_made_with_the_first_cue(tmp_path):
    path = tmp_path / "new.chat"
    with watching(tmp_path, path):
        assert path.read_text() == "User: "


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_watch_with_the_file_in_order(tmp_path, slow, ending):
    path = tmp_path / "a.chat"
    path.write_text("User: Hi")
    program = subprocess.Popen([*COMMAND, str(path), *slow], stderr=subprocess.PIPE, text=True)
    eventually(lambda: "more more" in path.read_text())
    program.send_signal(ending)
    info = program.communicate()[1]
    assert program.returncode in (0, 128 + ending) and "Traceback" not in info and "(stopped)" in info
    text = path.read_text()
    assert text.startswith("User: Hi\n\nStacy: more more") and text.endswith("more\n\nUser: ")


def test_after_a_kill_during_a_reply_the_next_watch_adds_the_cue(tmp_path, slow):
    path = tmp_path / "a.chat"
    path.write_text("User: Hi")
    program = subprocess.Popen([*COMMAND, str(path), *slow], stderr=subprocess.DEVNULL)
    eventually(lambda: "more more" in path.read_text())
    program.kill()
    program.wait()
    half = path.read_text()
    with watching(tmp_path, path):
        assert path.read_text() == f"{half.rstrip()}{half[len(half.rstrip()) :]}\n\nUser: "
        path.write_text(path.read_text() + "And?")
        eventually(lambda: path.read_text().endswith("User: And?\n\nStacy: And?\n\nUser: "))


def test_a_second_watcher_is_refused(tmp_path):
    path = tmp_path / "a.chat"
    with watching(tmp_path, path):
        done = once(path)
        assert done.returncode == 2 and done.stderr == f"townhall: {path} is already watched by another townhall; end that one first\n"
