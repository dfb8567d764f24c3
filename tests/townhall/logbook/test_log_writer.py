"""A log that is being written: locked, whole turn by turn, and never in the conversation's way."""

import os
import stat
import subprocess
import sys

import pytest

from townhall.errors import LogError
from townhall.logbook import log_syntax
from townhall.logbook.log_reader import read_log
from townhall.logbook.log_writer import LogWriter, new_id, write_whole

HEAD = {"id": "x", "user": "User", "persona": "Stacy"}


def said(text):
    return log_syntax.turn("User", text, "user", {"n": 0})


def texts(path):
    log = read_log(path)
    assert not log.damages
    return [turn.text for turn in log.turns]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "logs" / "a.md"


@pytest.fixture
def writer(path):
    said = []
    writer = LogWriter(path, HEAD, said.append)
    writer.said = said
    yield writer
    writer.close()


def test_folder_and_file_are_made_with_the_first_turn_and_are_the_users_own(writer, path):
    assert not path.parent.exists() and not writer.begun
    writer.append(said("Hi"))
    assert texts(path) == ["Hi"] and read_log(path).head == {"townhall": 1, **HEAD}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_every_turn_is_on_the_disk_when_append_returns(writer, path, monkeypatch):
    synced, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_size) or fsync(fd))
    for n in range(3):
        writer.append(said(f"turn {n}"))
        assert synced[-1] == path.stat().st_size


def test_a_second_writer_is_told_and_waits_for_the_first_to_end(writer, path):
    writer.append(said("Hi"))
    with pytest.raises(LogError, match="is being written by another townhall"):
        LogWriter(path, HEAD)
    code = f"from pathlib import Path; from townhall.logbook.log_writer import LogWriter; LogWriter(Path({str(path)!r}), {{}})"
    assert b"is being written by another townhall" in subprocess.run([sys.executable, "-c", code], capture_output=True).stderr
    writer.close()
    second = LogWriter(path, HEAD)
    second.append(said("Me now"))
    second.close()
    assert texts(path) == ["Hi", "Me now"]


def test_writing_goes_on_behind_a_line_without_an_end(writer, path):
    path.parent.mkdir(parents=True)
    path.write_text(log_syntax.front_matter(HEAD) + said("Hi") + "\n## Stacy\nI was saying")
    writer.append(said("Still there?"))
    assert texts(path) == ["Hi", "I was saying", "Still there?"]


def test_an_editor_that_puts_a_new_file_in_its_place_is_followed(writer, path):
    writer.append(said("Hi"))
    copy = path.with_suffix(".swp")
    copy.write_text(path.read_text().replace("Hi", "Hello"))
    copy.rename(path)
    writer.append(said("Next"))
    assert texts(path) == ["Hello", "Next"]
    path.unlink()
    writer.append(said("Anew"))
    assert texts(path) == ["Anew"] and read_log(path).head["id"] == "x"


def test_a_full_disk_is_reported_once_and_turns_are_kept_once_there_is_room(writer, path, monkeypatch):
    writer.append(said("Hi"))
    before, write = path.read_bytes(), os.write

    def full(fd, data):
        write(fd, data[:7])  # a disk takes what it can
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    writer.append(said("one"))
    writer.append(said("two"))
    assert path.read_bytes() == before and len(writer.said) == 1
    assert "No space left on device" in writer.said[0] and str(path) in writer.said[0]
    monkeypatch.setattr(os, "write", write)
    writer.append(said("three"))
    assert texts(path) == ["Hi", "one", "two", "three"] and len(writer.said) == 2 and "kept again, whole" in writer.said[1]


def test_a_limit_that_the_system_sets_is_survived_too(tmp_path):
    """The kernel's own error, in a process whose files may not grow beyond 2000 bytes."""
    code = f"""
import resource
from pathlib import Path
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
from townhall.logbook.log_writer import LogWriter
from tests.townhall.logbook.test_log_writer import HEAD, said
writer = LogWriter(Path({str(tmp_path / "a.md")!r}), HEAD, print)
for n in range(100):
    writer.append(said(f"turn {{n}}"))
"""
    done = subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, text=True)  # bytecode would be cut
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 1 and "File too large" in done.stdout, done.stderr
    kept = texts(tmp_path / "a.md")
    assert kept == [f"turn {n}" for n in range(len(kept))] and len(kept) > 20


@pytest.mark.parametrize("obstacle", ["a file in the folder's place", "a folder in the file's place"])
def test_a_place_that_cannot_be_written_is_said_and_survived(tmp_path, obstacle):
    lines = []
    if obstacle.startswith("a file"):
        (tmp_path / "logs").write_text("")
        writer = LogWriter(tmp_path / "logs" / "a.md", HEAD, lines.append)
    else:
        writer = LogWriter(tmp_path / "new" / "a.md", HEAD, lines.append)
        (tmp_path / "new" / "a.md").mkdir(parents=True)
    writer.append(said("Hi"))
    writer.append(said("Ho"))
    assert len(lines) == 1 and "goes on all the same" in lines[0]


def test_names_are_different_and_sort_by_time():
    names = [new_id() for _ in range(100)]
    assert len(set(names)) == 100 and len(names[0]) == 22


@pytest.mark.parametrize("links", [True, False])
def test_a_whole_log_is_put_where_nothing_lies_and_nowhere_else(path, monkeypatch, links):
    if not links:  # as on a stick that was formatted for another system

        def refuse(*places):
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)
    write_whole(path, HEAD, said("Hi"))
    assert texts(path) == ["Hi"] and os.listdir(path.parent) == ["a.md"] and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    for place, fault in (
        (path, "is there already, and stays"),
        (path.with_suffix(".txt"), "end it in .md"),
        (path / "b.md", "cannot be written"),
    ):
        with pytest.raises(LogError, match=fault):
            write_whole(place, HEAD, said("Ho"))
    assert texts(path) == ["Hi"] and os.listdir(path.parent) == ["a.md"]
