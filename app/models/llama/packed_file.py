"""The file of one checkpoint's packed weights: a header (JSON: what lies where, a digest per piece) and the packed bytes.

It is read, or mapped, by a thread of its own, without the interpreter's lock, while others import, build tokenizers or trace. Written it
is beside its place and renamed. What is missing, foreign or damaged is detected matrix by matrix.
"""

import hashlib
import json
import mmap
import os
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ext.tinygrad import cache_files, pages
from ext.tinygrad.kernels.packed import memory
from ext.tinygrad.kernels.packed.formats import FORMATS

MAGIC = b"townhall-weights-1\n"
PAGE = 4096  # the packed bytes begin at a multiple of it
PIECE = 64 << 20  # bytes read, checked or written at a time
WORDS = 8192  # of 8 bytes: what one checked sum covers
MOST_HEADER = 1 << 24


@dataclass(frozen=True)
class PackedEntry:
    """One packed matrix."""

    format: str
    shape: tuple[int, int]
    start: int  # among the packed bytes
    nbytes: int
    file_bytes: int  # of the checkpoint

    @property
    def stop(self) -> int:
        return self.start + self.nbytes


@dataclass(frozen=True)
class Packed:
    """A matrix to be written."""

    format: str
    shape: tuple[int, int]
    data: np.ndarray  # uint8, flat
    file_bytes: int


class PackedFile:
    """A file being read into huge pages, or checked where it is mapped."""

    def __init__(self, file: BinaryIO, start: int, nbytes: int, entries: dict[str, PackedEntry], digests: list[str], in_place: bool):
        self.entries, self._digests = entries, digests
        if in_place:
            self._data = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)[start : start + nbytes]
        else:
            self._data = memory.Arena(nbytes, spread=True).take(nbytes)
            file.seek(start)
        self._sound = [False] * len(digests)
        self._read = [threading.Event() for _ in digests]
        threading.Thread(target=self._read_all, args=(file, pages.populate if in_place else None), name="weights", daemon=True).start()

    @classmethod
    def open(cls, path: Path, in_place: bool = False) -> "PackedFile | None":
        """Begin to read, or `in_place` to map, which copies nothing. None for a file that is not there, or not what `write` writes."""
        try:
            file = path.open("rb", buffering=0)
        except OSError:
            return None
        try:
            return cls(file, *_read_header(file), in_place)
        except (ValueError, KeyError, TypeError, OSError, struct.error):
            file.close()
            return None

    def bytes_of(self, entry: PackedEntry) -> np.ndarray | None:
        """The entry's packed bytes, as soon as they are there; None where they are damaged."""
        pieces = range(entry.start // PIECE, -(-entry.stop // PIECE))
        for piece in pieces:
            self._read[piece].wait()
        return self._data[entry.start : entry.stop] if all(self._sound[piece] for piece in pieces) else None

    def _read_all(self, file: BinaryIO, populate: Callable[[np.ndarray], None] | None) -> None:
        try:
            for piece, digest in enumerate(self._digests):
                part = self._data[piece * PIECE : (piece + 1) * PIECE]
                if populate:
                    populate(part)
                    whole = True
                else:
                    whole = _fill(file, part)
                self._sound[piece] = whole and _digest(part) == digest
                self._read[piece].set()
        except OSError:
            pass
        finally:
            file.close()
            for event in self._read:
                event.set()


def _fill(file: BinaryIO, part: np.ndarray) -> bool:
    done = 0
    while done < len(part) and (n := file.readinto(part[done:].data)):  # type: ignore[attr-defined]
        done += n
    return done == len(part)


def _digest(data: np.ndarray) -> str:
    """Of damage, not of malice: a sum per 64 KB, and a cryptographic hash over the sums; as fast as memory is read."""
    words = data[: len(data) // 8 * 8].view(np.uint64)
    whole = len(words) // WORDS * WORDS
    total = hashlib.blake2b(words[:whole].reshape(-1, WORDS).sum(axis=1, dtype=np.uint64).tobytes(), digest_size=16)
    total.update(words[whole:].tobytes() + data[len(words) * 8 :].tobytes())
    return total.hexdigest()


def _read_header(file: BinaryIO) -> tuple[int, int, dict[str, PackedEntry], list[str]]:
    """(where the packed bytes begin, how many they are, what lies where, digests); ValueError and its kin for anything else."""
    prefix = file.read(len(MAGIC) + 8 + 16)
    if not prefix.startswith(MAGIC):
        raise ValueError("another format")
    (length,) = struct.unpack_from("<Q", prefix, len(MAGIC))
    if length > MOST_HEADER:
        raise ValueError("the header is damaged")
    text = file.read(length)
    if hashlib.blake2b(text, digest_size=16).digest() != prefix[-16:]:
        raise ValueError("the header is damaged")
    header: Mapping[str, Any] = json.loads(text)
    entries = {name: PackedEntry(e[0], (e[1], e[2]), *e[3:]) for name, e in header["entries"].items()}
    start, nbytes = _align(len(prefix) + length, PAGE), int(header["nbytes"])
    if os.fstat(file.fileno()).st_size != start + nbytes or len(header["digests"]) != -(-nbytes // PIECE):
        raise ValueError("the file is truncated")
    for entry in entries.values():
        if entry.stop > nbytes or entry.nbytes != FORMATS[entry.format].nbytes(*entry.shape):
            raise ValueError("an entry is damaged")
    return start, nbytes, entries, header["digests"]


def packed_bytes(matrices: Mapping[str, Packed]) -> int:
    """Bytes that they take in a file, its header apart."""
    return sum(_align(matrix.data.nbytes, memory.ALIGNMENT) for matrix in matrices.values())


def write(path: Path, matrices: Mapping[str, Packed], stopped: Callable[[], bool]) -> None:
    """Write beside `path` and rename: a reader or a crash never meets half a file. Nothing is left where `stopped` says so on the way."""
    entries, end = {}, 0
    for name, matrix in matrices.items():
        entries[name] = (matrix.format, *matrix.shape, end, matrix.data.nbytes, matrix.file_bytes)
        end = _align(end + matrix.data.nbytes, memory.ALIGNMENT)
    with cache_files.written(path) as part, part.open("wb") as file:
        # digests are of the same length whatever they are, so the header is written first with room for them
        header = _header(entries, end, ["0" * 32] * -(-end // PIECE))
        file.seek(start := _align(len(header), PAGE))
        digests = []
        for piece in _pieces([matrix.data for matrix in matrices.values()], end):
            if stopped():
                raise InterruptedError("what is half written is of no use")
            digests.append(_digest(piece))
            file.write(piece.data)
        assert file.tell() == start + end
        file.seek(0)
        file.write(_header(entries, end, digests))


def _pieces(arrays: list[np.ndarray], end: int) -> Iterator[np.ndarray]:
    """The arrays one after another, each from a cache line's start, in PIECE bytes at a time; the same memory again and again."""
    piece, filled = np.zeros(min(PIECE, end), np.uint8), 0
    for array in arrays:
        for data in (array, np.zeros(-array.nbytes % memory.ALIGNMENT, np.uint8)):
            while len(data):
                taken = data[: len(piece) - filled]
                piece[filled : filled + len(taken)] = taken
                filled, data = filled + len(taken), data[len(taken) :]
                if filled == len(piece):
                    yield piece
                    filled = 0
    if filled:
        yield piece[:filled]


def _header(entries: Mapping[str, Any], nbytes: int, digests: list[str]) -> bytes:
    text = json.dumps({"nbytes": nbytes, "digests": digests, "entries": entries}, separators=(",", ":")).encode()
    return MAGIC + struct.pack("<Q", len(text)) + hashlib.blake2b(text, digest_size=16).digest() + text


def _align(n: int, to: int) -> int:
    return -(-n // to) * to
