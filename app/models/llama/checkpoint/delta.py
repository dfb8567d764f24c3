"""Deltas: a file given as its difference from another that only some may have, as point-alpaca published its weights.

NAME.<sha256>.enc holds the 32-byte SHA-256 of the plain file, then plain XOR base, the base repeated where it is shorter. A thread per
file XORs chunks where the inputs are mapped, and digests and writes them; where cores are to spare another one digests. All of that lets
go of the interpreter.
"""

import hashlib
import itertools
import mmap
import os
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ext.tinygrad.errors import TownhallError

NAME = re.compile(r"(.+)\.([0-9a-f]{64})\.enc")
DIGEST = 32
CHUNK = 1 << 19  # bytes at a time: a result is in the second-level cache while it is digested and written
AHEAD = 4  # chunks that wait, XORed, to be digested by another thread
OnBytes = Callable[[int], object]


class DeltaError(TownhallError):
    """A delta, or its base, that cannot be used: names the file, the fault and the mend."""


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def plain_name(delta: Path) -> tuple[str, str]:
    """(NAME, digest in hexadecimal) that a delta's file name gives."""
    match = NAME.fullmatch(delta.name)
    if match is None or match[1] in (".", ".."):
        raise DeltaError(f"{delta} is not called NAME.<sha256>.enc; give it the name it was published under")
    return match[1], match[2]


def total_bytes(paths: Sequence[Path]) -> int:
    """Bytes that a progress bar over these files counts."""
    return sum(path.stat().st_size for path in paths if path.is_file())


def apply(base: Path, deltas: Sequence[Path], out: Path, on_bytes: OnBytes = lambda n: None) -> list[Path]:
    """Write each delta's plain file into `out` and return their paths.

    A file that is there with the right digest is left alone, a .part is taken up where it ended. DeltaError names a missing or wrong base,
    a truncated delta and a digest that does not match; of the file concerned nothing is left then.
    """
    names = _distinct(deltas)
    _check_base(base)
    out.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(cores()) as files:
        spare_core = len(deltas) < cores()
        return _results([files.submit(_apply_one, base, delta, out / name, on_bytes, spare_core) for delta, name in zip(deltas, names)])


def make(base: Path, plains: Sequence[Path], out: Path, on_bytes: OnBytes = lambda n: None) -> list[Path]:
    """Write each file's delta against `base` into `out` and return their paths."""
    _check_base(base)
    for plain in plains:
        _size(plain, "the file to make a delta of")
    if len({plain.name for plain in plains}) < len(plains):
        raise DeltaError("two files of the same name cannot become deltas in one folder; rename one, or use two folders")
    out.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(cores()) as files:
        return _results([files.submit(_make_one, base, plain, out, on_bytes, len(plains) < cores()) for plain in plains])


def _results(jobs: "list[Future[Path]]") -> list[Path]:
    """All of them, or the first error once every file has come to its end."""
    errors = [error for job in jobs if (error := job.exception()) is not None]
    if errors and isinstance(error := errors[0], OSError):
        raise DeltaError(f"{error.filename or 'a file'} cannot be read or written ({error.strerror}); mend that and run the command again")
    if errors:
        raise errors[0]
    return [job.result() for job in jobs]


def _distinct(deltas: Sequence[Path]) -> list[str]:
    names = [plain_name(delta)[0] for delta in deltas]
    for i, name in enumerate(names):
        if name in names[:i]:
            raise DeltaError(f"{deltas[i]} and another delta both make {name}; apply them into different folders")
    return names


def _size(path: Path, what: str) -> int:
    if not path.exists():
        raise DeltaError(f"{path}, {what}, does not exist; check the path")
    if not path.is_file():
        raise DeltaError(f"{path}, {what}, is not a file; pass the path of one")
    return path.stat().st_size


def _check_base(base: Path) -> None:
    if _size(base, "the base") == 0:
        raise DeltaError(f"{base}, the base, is empty; download it again")


def _apply_one(base: Path, delta: Path, target: Path, on_bytes: OnBytes, spare_core: bool) -> Path:
    size = _size(delta, "a delta")
    if size < DIGEST:
        raise DeltaError(f"{delta} has only {size} bytes: it is truncated; download it again")
    with delta.open("rb") as file:
        digest = file.read(DIGEST)
    if digest.hex() != plain_name(delta)[1]:
        raise DeltaError(f"{delta} begins with another digest than its name gives: it is damaged or renamed; download it again")
    if target.exists() and target.stat().st_size == size - DIGEST and _digest(target) == digest:
        on_bytes(size)
        return target
    part = target.with_name(f"{target.name}.part")
    start = min(part.stat().st_size, size - DIGEST) // CHUNK * CHUNK if part.is_file() else 0
    found = _xor(delta, DIGEST, base, part, 0, start, on_bytes, spare_core)
    if found != digest and start:  # the part may have been another's
        on_bytes(DIGEST - size)
        found = _xor(delta, DIGEST, base, part, 0, 0, on_bytes, spare_core)
    if found != digest:
        part.unlink()
        raise DeltaError(f"{delta} does not give {target.name} with {base}: a wrong base, or a truncated delta; check both")
    on_bytes(DIGEST)
    part.replace(target)
    return target


def _make_one(base: Path, plain: Path, out: Path, on_bytes: OnBytes, spare_core: bool) -> Path:
    part = out / f"{plain.name}.enc.part"
    digest = _xor(plain, 0, base, part, DIGEST, 0, on_bytes, spare_core, digest_input=True)
    with part.open("r+b") as file:
        file.write(digest)
    target = out / f"{plain.name}.{digest.hex()}.enc"
    part.replace(target)
    return target


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _xor(
    source: Path,
    source_at: int,
    base: Path,
    target: Path,
    target_at: int,
    start: int,
    on_bytes: OnBytes,
    spare_core: bool,
    digest_input: bool = False,
) -> bytes:
    """Write source XOR base (but for headers of source_at and target_at bytes) from byte `start` on -> SHA-256 of the whole plain side."""
    plain, other, ahead = _mapped(source)[source_at:], _Repeated(_mapped(base)), AHEAD if spare_core else 0
    with target.open("r+b" if start else "wb", buffering=0) as output, _Digest(ahead) as digest:
        if start:
            for block in _blocks(output.fileno(), start):
                digest.update(block)
                on_bytes(len(block))
        output.truncate(target_at + start)
        output.seek(target_at + start)
        buffers = itertools.cycle([np.empty(CHUNK, np.uint8) for _ in range(ahead + 1)])
        for at, buffer in zip(range(start, len(plain), CHUNK), buffers):
            chunk = plain[at : at + CHUNK]
            result = other.xor(chunk, at, buffer[: len(chunk)])
            digest.update((chunk if digest_input else result).data)
            _write_all(output, result.data)
            on_bytes(len(chunk))
        return digest.result()


class _Digest:
    """SHA-256, found by a thread of its own that `ahead` pieces may wait for; by the caller's where none may."""

    def __init__(self, ahead: int) -> None:
        self._digest, self._ahead = hashlib.sha256(), ahead
        self._pool = ThreadPoolExecutor(1) if ahead else None
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> "_Digest":
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


def _mapped(path: Path) -> np.ndarray:
    """The file's bytes, uint8: reading a map copies nothing."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return np.zeros(0, np.uint8)
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if hasattr(mmap, "MADV_SEQUENTIAL"):
            pages.madvise(mmap.MADV_SEQUENTIAL)
        return np.frombuffer(pages, np.uint8)


class _Repeated:
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


def _write_all(file: BinaryIO, data: memoryview) -> None:
    while len(data):
        data = data[file.write(data) :]


def _blocks(file: int, end: int) -> Iterator[bytes]:
    at = 0
    while at < end:
        block = os.pread(file, min(CHUNK, end - at), at)
        if not block:
            return
        yield block
        at += len(block)
