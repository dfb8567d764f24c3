"""Files that are cut short while they are mapped: the last words of a process."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="files that are mapped cannot be cut short there")]

PROGRAM = """
import mmap, os, sys
from ext.tinygrad import sigbus
from ext.tinygrad.toolchain import prepare_environment

prepare_environment()
for path in sys.argv[1:]:
    sigbus.expect(path)
with open(path, "rb") as file:
    pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
os.truncate(path, 0)
pages[0]
"""


def last_words(*paths: Path, **env: str) -> str:
    paths[-1].write_bytes(b"weights")
    command = [sys.executable, "-c", PROGRAM, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"DEV": "CPU"} | env, cwd=Path(__file__).parents[3])
    assert done.returncode == -signal.SIGBUS
    return done.stderr


def test_the_file_is_named_before_the_process_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    fault = "it was cut short, or its disk failed, while its weights were in use"
    assert last_words(path) == f"\n{path} can no longer be read: {fault}; copy it again, then start anew\n"


def test_of_several_files_the_newest_is_named_first_and_none_draws_on_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "b\x1b[2J.gguf"
    assert f"\n{tmp_path}/b?[2J.gguf (or one.gguf, two.gguf) can no longer be read" in last_words(Path("one.gguf"), Path("two.gguf"), path)


def test_a_handler_that_is_there_stays(tmp_path: Path) -> None:
    info = last_words(tmp_path / "a.gguf", PYTHONFAULTHANDLER="1")
    assert "Fatal Python error: Bus error" in info and "can no longer be read" not in info
