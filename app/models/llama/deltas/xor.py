"""One file XOR another into a third, and the SHA-256 of one of them on the way: bound by memory and the digest, not by Python.

One thread XORs chunks where the inputs are mapped and digests them, another waits for the disk; where a core is to spare a third one
digests. All of that lets go of the interpreter. `Output` writes front to back and past the page cache (O_DIRECT, where the file system
has it), so that no memory is taken for gigabytes that are not read again.
"""

import errno
import hashlib
import mmap
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

STRETCH = 4 << 20  # bytes of one write: a disk is slower with less
BLOCK = 4096  # bytes: what goes past the cache begins and ends at a multiple of it, in the file and in memory


class Output:
    """What `path` has before byte `start`, a multiple of BLOCK, is kept, and what it has after that is cut off.

    What was asked for with `room` and filled is written in its order, also where an error ends the block; OSError names the path.
    """

    def __init__(self, path: Path, start: int = 0) -> None:
        assert start % BLOCK == 0, start
        self._path, self._at = path, start
        self._file = path.open("r+b" if start else "w+b", buffering=0)
        self._past_cache = _past_cache(path)
        self._writer = ThreadPoolExecutor(1)
        self._buffers = [np.frombuffer(mmap.mmap(-1, STRETCH), np.uint8) for _ in range(2)]  # one is written, one is filled
        self._filled = 0
        self._writing: Future[None] | None = None
        self._file.truncate(start)

    def __enter__(self) -> "Output":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            try:
                self._flush()
                self._wait()
                os.fsync(self._file.fileno())
            except OSError:
                if kind is None:
                    raise
        finally:
            self._writer.shutdown()
            self._file.close()
            if self._past_cache is not None:
                os.close(self._past_cache)

    def room(self, most: int) -> np.ndarray:
        """uint8 for the file's next bytes, `most` or fewer, to be filled at once; it stays what it is for STRETCH bytes more."""
        if self._filled == STRETCH:
            self._flush()
        first, self._filled = self._filled, min(self._filled + most, STRETCH)
        return self._buffers[0][first : self._filled]

    def read(self, at: int, most: int) -> bytes:
        """Bytes before `start`."""
        self._file.seek(at)
        return self._file.read(most)

    def _flush(self) -> None:
        self._wait()
        self._writing = self._writer.submit(self._write, self._buffers[0][: self._filled].data, self._at)
        self._at, self._filled = self._at + self._filled, 0
        self._buffers.reverse()

    def _wait(self) -> None:
        writing, self._writing = self._writing, None
        try:
            if writing:
                writing.result()
        except OSError:
            self._filled = 0  # nothing is written behind a gap
            raise

    def _write(self, data: memoryview, at: int) -> None:
        try:
            while data:
                written = self._write_past_cache(data, at) or self._write_to_cache(data, at)
                data, at = data[written:], at + written
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from error

    def _write_to_cache(self, data: memoryview, at: int) -> int:
        self._file.seek(at)
        return self._file.write(data)

    def _write_past_cache(self, data: memoryview, at: int) -> int:
        """How many bytes could be."""
        whole = len(data) // BLOCK * BLOCK
        if self._past_cache is None or whole == 0 or at % BLOCK:
            return 0
        try:
            return os.pwrite(self._past_cache, data[:whole], at)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return 0  # blocks of this disk are larger


def _past_cache(path: Path) -> int | None:
    """A descriptor for that; None where there is no such way."""
    if not (flag := getattr(os, "O_DIRECT", 0)):
        return None
    try:
        return os.open(path, os.O_WRONLY | flag)
    except OSError:
        return None


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
