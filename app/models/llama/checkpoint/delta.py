"""Deltas: a file given as its difference from another that only some may have, as point-alpaca published its weights.

NAME.<sha256>.enc holds the 32-byte SHA-256 of the plain file, then plain XOR base, the base repeated where it is shorter. Reading, XOR and
digest overlap: chunks are XORed ahead on a pool of threads, digested in order by one and written in order by another; NumPy, hashlib and
file reads all let go of the interpreter.
"""

import hashlib
import os
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from ext.tinygrad.errors import TownhallError

NAME = re.compile(r"(.+)\.([0-9a-f]{64})\.enc")
DIGEST = 32
CHUNK = 1 << 20  # of bytes; two inputs and the result stay in the caches
AHEAD = 4  # chunks that wait, XORed, to be digested
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
    with ThreadPoolExecutor(cores()) as pool, ThreadPoolExecutor(cores()) as files:
        jobs = [files.submit(_apply_one, base, delta, out / name, pool, on_bytes) for delta, name in zip(deltas, names, strict=True)]
        return _results(jobs)


def make(base: Path, plains: Sequence[Path], out: Path, on_bytes: OnBytes = lambda n: None) -> list[Path]:
    """Write each file's delta against `base` into `out` and return their paths."""
    _check_base(base)
    for plain in plains:
        _size(plain, "the file to make a delta of")
    if len({plain.name for plain in plains}) < len(plains):
        raise DeltaError("two files of the same name cannot become deltas in one folder; rename one, or use two folders")
    out.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(cores()) as pool, ThreadPoolExecutor(cores()) as files:
        return _results([files.submit(_make_one, base, plain, out, pool, on_bytes) for plain in plains])


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


def _apply_one(base: Path, delta: Path, target: Path, pool: ThreadPoolExecutor, on_bytes: OnBytes) -> Path:
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
    found = _xor(delta, DIGEST, base, part, 0, start, pool, on_bytes)
    if found != digest and start:  # the part may have been another's
        on_bytes(DIGEST - size)
        found = _xor(delta, DIGEST, base, part, 0, 0, pool, on_bytes)
    if found != digest:
        part.unlink()
        raise DeltaError(f"{delta} does not give {target.name} with {base}: a wrong base, or a truncated delta; check both")
    on_bytes(DIGEST)
    part.replace(target)
    return target


def _make_one(base: Path, plain: Path, out: Path, pool: ThreadPoolExecutor, on_bytes: OnBytes) -> Path:
    part = out / f"{plain.name}.enc.part"
    digest = _xor(plain, 0, base, part, DIGEST, 0, pool, on_bytes, digest_input=True)
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
    pool: ThreadPoolExecutor,
    on_bytes: OnBytes,
    digest_input: bool = False,
) -> bytes:
    """Write source XOR base (but for headers of source_at and target_at bytes) from byte `start` on -> SHA-256 of the whole plain side."""
    digest = hashlib.sha256()
    with ExitStack() as stack:
        inputs = stack.enter_context(source.open("rb", buffering=0)), stack.enter_context(base.open("rb", buffering=0))
        length, period = os.fstat(inputs[0].fileno()).st_size - source_at, os.fstat(inputs[1].fileno()).st_size
        output = stack.enter_context(target.open("r+b" if start else "wb", buffering=0))
        if start:
            for block in _blocks(output.fileno(), start):
                digest.update(block)
                on_bytes(len(block))
        output.truncate(target_at + start)
        output.seek(target_at + start)
        writer = stack.enter_context(ThreadPoolExecutor(1))
        spare: deque[_Buffers] = deque(_Buffers() for _ in range(AHEAD + 2))
        queue: deque[Future[_Buffers]] = deque()
        writing: deque[tuple[Future[None], _Buffers]] = deque()
        at = start
        while at < length or queue:
            while at < length and spare:
                n = min(CHUNK, length - at)
                queue.append(pool.submit(spare.pop().fill, inputs[0].fileno(), source_at + at, inputs[1].fileno(), at, period, n))
                at += n
            ready = queue.popleft().result()
            writing.append((writer.submit(_write_all, output.fileno(), ready.result), ready))
            digest.update(ready.source if digest_input else ready.result)
            on_bytes(len(ready.result))
            while writing and (len(writing) > 1 or writing[0][0].done()):
                done, buffers = writing.popleft()
                done.result()
                spare.append(buffers)
        for done, _ in writing:
            done.result()
    return digest.digest()


class _Buffers:
    """Room for one chunk of both inputs and of the result, used again and again."""

    def __init__(self) -> None:
        self._source, self._base, self._result = (np.empty(CHUNK, np.uint8) for _ in range(3))
        self.source: memoryview = self._result.data
        self.result: memoryview = self._result.data

    def fill(self, source: int, source_at: int, base: int, at: int, period: int, n: int) -> "_Buffers":
        """n bytes: source from source_at on, XOR base from `at` on, which begins anew after `period` bytes."""
        _read_at(source, self._source[:n], source_at)
        offset = at % period
        if period < n:
            whole = np.empty(period, np.uint8)
            _read_at(base, whole, 0)
            self._base[:n] = np.resize(np.roll(whole, -offset), n)
        else:
            head = min(n, period - offset)
            _read_at(base, self._base[:head], offset)
            _read_at(base, self._base[head:n], 0)
        np.bitwise_xor(self._source[:n], self._base[:n], out=self._result[:n])
        self.source, self.result = self._source[:n].data, self._result[:n].data
        return self


def _read_at(file: int, into: np.ndarray, offset: int) -> None:
    view, done = into.data, 0
    while done < len(view):
        n = os.preadv(file, [view[done:]], offset + done)
        if n == 0:
            raise DeltaError("a file became shorter while it was read; let nothing else write to it")
        done += n


def _write_all(file: int, data: memoryview) -> None:
    while len(data):
        data = data[os.write(file, data) :]


def _blocks(file: int, end: int) -> Iterator[bytes]:
    at = 0
    while at < end:
        block = os.pread(file, min(CHUNK, end - at), at)
        if not block:
            return
        yield block
        at += len(block)
