"""Lines over sessions: bounded, private, safe with several writers, and worth nothing when damaged."""

import os
import stat
import subprocess
import sys

import pytest

from townhall.cli import line_history
from townhall.cli.line_history import KEPT, LONGEST, LineHistory


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data" / "history.jsonl"


def test_lines_come_back_in_order_whatever_is_in_them(path):
    lines = ["Hi", "two\nrows", "grüße 日本 🎉", "\x1b[31m", "  spaces  "]
    for line in lines:
        LineHistory(path).append(line)
    assert LineHistory(path).load() == lines


def test_it_is_private(path):
    LineHistory(path).append("Hi")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.chmod(0o644)
    LineHistory(path).append("Ho")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_it_is_cut_back_to_the_newest_lines(path):
    ours = LineHistory(path)
    for n in range(2 * KEPT + 1):
        ours.append(f"line {n}")
    assert len(path.read_text().splitlines()) == KEPT + 1
    assert ours.load() == [f"line {n}" for n in range(KEPT + 1, 2 * KEPT + 1)]


def test_a_file_of_any_size_is_cut_back(path, monkeypatch):
    monkeypatch.setattr(line_history, "MOST_BYTES", 1000)
    path.parent.mkdir()
    path.write_text('"' + "x" * 5000 + '"\n"a"\n')
    LineHistory(path).append("b")
    assert LineHistory(path).load() == ["a", "b"] and path.stat().st_size < 1000


def test_what_is_too_long_is_not_kept(path):
    LineHistory(path).append("x" * (LONGEST + 1))
    assert not path.exists()


def test_without_keeping_nothing_is_written_and_the_old_lines_are_there(path):
    LineHistory(path).append("Hi")
    quiet = LineHistory(path, keep=False)
    quiet.append("secret")
    assert quiet.load() == ["Hi"] and "secret" not in path.read_text()


@pytest.mark.parametrize("damage", [b"\xff\xfe\x00\n", b"[1, 2]\n", b'"unfinished', b"[" * 100_000 + b"\n", b'"\\ud800"\n'])
def test_damage_costs_itself_only(path, damage):
    path.parent.mkdir()
    path.write_bytes(b'"before"\n' + damage)
    LineHistory(path).append("after")
    found = LineHistory(path).load()
    assert found[0] == "before" and found[-1] == "after"
    "".join(found).encode()


def test_a_file_that_cannot_be_used_is_done_without(path):
    path.mkdir(parents=True)
    LineHistory(path).append("Hi")
    assert LineHistory(path).load() == []
    path.rmdir()
    os.mkfifo(path)
    LineHistory(path).append("Hi")
    assert LineHistory(path).load() == []


def test_sessions_at_once_lose_none_of_each_others_lines(path):
    code = (
        "import sys; from pathlib import Path; from townhall.cli.line_history import LineHistory\n"
        "for n in range(200): LineHistory(Path(sys.argv[1])).append(f'{sys.argv[2]} {n}')"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), name]) for name in "abc"]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    found = LineHistory(path).load()
    assert {name: [line for line in found if line[0] == name] for name in "abc"} == {
        name: [f"{name} {n}" for n in range(200)] for name in "abc"
    }
