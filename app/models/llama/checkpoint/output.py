"""A file that is written front to back, past the page cache where the system lets it.

Nobody takes memory for gigabytes that are not read again, and the disk writes one stretch while the next is made. Where there is no such
way (O_DIRECT of Linux, on most file systems) the cache is written to as ever.
"""

import errno
import mmap
import os
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
