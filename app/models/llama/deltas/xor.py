"""One file XOR another into a third, and the SHA-256 of one of them on the way: bound by memory and the digest, not by Python.

A thread XORs chunks where the inputs are mapped and digests them, another waits for the disk (output.py); where a core is to spare a third
one digests. All of that lets go of the interpreter. A file that another process cuts short meanwhile ends this one (cut_short.py).
"""

import hashlib
import mmap
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from app.models.llama.checkpoint.output import Output

CHUNK = 1 << 19  # bytes at a time: a result is in the second-level cache while it is digested
AHEAD = 4  # chunks that wait, XORed, to be digested by another thread
OnBytes = Callable[[int], object]


def xor_files(
    source: Path,
    base: Path,
    target: Path,
    on_bytes: OnBytes,
    *,
    source_header: int = 0,
    target_header: int = 0,
    start: int = 0,
    digest_source: bool = False,
    spare_core: bool = False,
) -> bytes:
    """Write source XOR base, which is repeated where it is shorter, from byte `start` on; -> SHA-256 of the whole source or target.

    Headers are bytes that stand before what is counted; the target's is left to the caller. What the target has before `start` is kept.
    """
    plain, other = mapped(source)[source_header:], Repeated(mapped(base))
    with Output(target, start) as output, Digest(AHEAD if spare_core else 0) as digest:
        for at in range(0, start, CHUNK):
            digest.update(output.read(at, min(CHUNK, start - at)))
            on_bytes(min(CHUNK, start - at))
        at = start
        if target_header:
            output.room(target_header).fill(0)
        while at < len(plain):
            result = output.room(min(CHUNK, len(plain) - at))
            chunk = plain[at : at + len(result)]
            other.xor(chunk, at, result)
            digest.update((chunk if digest_source else result).data)
            on_bytes(len(chunk))
            at += len(chunk)
        return digest.result()


class Digest:
    """SHA-256, found by a thread of its own that `ahead` pieces may wait for; by the caller's where none may."""

    def __init__(self, ahead: int) -> None:
        self._digest, self._ahead = hashlib.sha256(), ahead
        self._pool = ThreadPoolExecutor(1) if ahead else None
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> "Digest":
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool:
            self._pool.shutdown()

    def update(self, piece: memoryview | bytes) -> None:
        """Add a piece, which has to stay as it is until `ahead` more were added."""
        if self._pool is None:
            return self._digest.update(piece)
        if len(self._waiting) == self._ahead:
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(self._digest.update, piece))

    def result(self) -> bytes:
        """Of all of them."""
        while self._waiting:
            self._waiting.popleft().result()
        return self._digest.digest()


def mapped(path: Path) -> np.ndarray:
    """The file's bytes, uint8: reading a map copies nothing."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return np.zeros(0, np.uint8)
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if hasattr(mmap, "MADV_SEQUENTIAL"):
            pages.madvise(mmap.MADV_SEQUENTIAL)
        return np.frombuffer(pages, np.uint8)


class Repeated:
    """Bytes that begin anew where they end."""

    def __init__(self, once: np.ndarray) -> None:
        # what is shorter than a chunk is written out, so that a chunk meets its end once at most
        self._period, self._bytes = len(once), np.tile(once, -(-2 * CHUNK // len(once))) if len(once) < CHUNK else once

    def xor(self, chunk: np.ndarray, at: int, out: np.ndarray) -> np.ndarray:
        """`chunk` XOR as many bytes from `at` on; -> out."""
        offset = at % self._period
        head = min(len(chunk), len(self._bytes) - offset)
        np.bitwise_xor(chunk[:head], self._bytes[offset : offset + head], out=out[:head])
        if head < len(chunk):
            np.bitwise_xor(chunk[head:], self._bytes[: len(chunk) - head], out=out[head:])
        return out
