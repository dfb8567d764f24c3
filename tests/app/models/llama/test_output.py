"""Files written past the page cache, and to it where that cannot be: the same bytes, and errors that name the file."""

import errno
import os
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from app.models.llama.deltas import xor
from app.models.llama.deltas.xor import BLOCK, STRETCH, Output

BYTES = np.random.default_rng(2).integers(0, 256, 2 * STRETCH + 3 * BLOCK + 77, np.uint8)


def write(path: Path, sizes: Sequence[int], start: int = 0) -> None:
    """BYTES from `start` on, in pieces of these sizes and what is left."""
    with Output(path, start) as file:
        at = start
        for size in (*sizes, *[len(BYTES)] * 4):
            room = file.room(min(size, len(BYTES) - at))
            room[:] = BYTES[at : at + len(room)]
            at += len(room)
    assert at == len(BYTES)


@pytest.fixture(params=["past the cache", "to the cache", "larger blocks"])
def way(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "to the cache":
        monkeypatch.setattr(xor, "_past_cache", lambda path: None)
    else:
        (tmp_path / "try").touch()
        if (descriptor := xor._past_cache(tmp_path / "try")) is None:
            pytest.skip("nothing can be written past the cache here")
        os.close(descriptor)
    if request.param == "larger blocks":

        def refuse(fd: int, data: memoryview, at: int) -> int:
            raise OSError(errno.EINVAL, "Invalid argument")

        monkeypatch.setattr(os, "pwrite", refuse)
    return str(request.param)


@pytest.mark.parametrize("sizes", [(), (32,), (1, BLOCK, STRETCH - 1, 5), (STRETCH, STRETCH), (STRETCH // 3,) * 5], ids=str)
def test_bytes_are_written_in_their_order(way: str, tmp_path: Path, sizes: tuple[int, ...]) -> None:
    write(tmp_path / "a", sizes)
    assert (tmp_path / "a").read_bytes() == BYTES.tobytes()


def test_what_stands_before_the_start_is_kept_and_the_rest_is_cut_off(way: str, tmp_path: Path) -> None:
    path, kept = tmp_path / "a", BYTES[: 5 * BLOCK].tobytes()
    path.write_bytes(kept + b"x" * len(BYTES))
    with Output(path, 5 * BLOCK) as file:
        assert file.read(BLOCK, 2 * BLOCK) == kept[BLOCK : 3 * BLOCK]
        file.room(3)[:] = 1
    assert path.read_bytes() == kept + b"\1\1\1"
    write(path, (), 5 * BLOCK)
    assert path.read_bytes() == BYTES.tobytes()


def test_an_error_keeps_what_was_filled_before_it(way: str, tmp_path: Path) -> None:
    def fail() -> None:
        with Output(tmp_path / "a") as file:
            file.room(BLOCK + 5)[:] = 7
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (tmp_path / "a").read_bytes() == b"\7" * (BLOCK + 5)


def test_a_disk_that_is_full_is_told_with_the_files_name(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # it would be cut
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (STRETCH + BLOCK, before[1]))
    try:
        with pytest.raises(OSError) as info:
            write(tmp_path / "a", ())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert info.value.errno == errno.EFBIG and info.value.filename == str(tmp_path / "a")
    kept = (tmp_path / "a").read_bytes()
    assert STRETCH <= len(kept) <= STRETCH + BLOCK and BYTES.tobytes().startswith(kept)


def test_behind_a_stretch_that_was_not_written_nothing_is(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plainly, failed = Output._write, []

    def fail_once(self: Output, data: memoryview, at: int) -> None:
        if not failed:
            failed.append(at)
            raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "a"))
        plainly(self, data, at)

    monkeypatch.setattr(Output, "_write", fail_once)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "a", ())
    assert failed == [0] and (tmp_path / "a").read_bytes() == b""
