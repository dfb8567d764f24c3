"""Deltas: a file given as its difference from another that only some may have, as point-alpaca published its weights.

NAME.<sha256>.enc holds the 32-byte SHA-256 of the plain file, then plain XOR base, the base repeated where it is shorter. Every file has a
thread of its own (xor.py).
"""

import hashlib
import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from app.models.llama.checkpoint.cores import cores
from app.models.llama.checkpoint.truncated_file import report_truncation
from app.models.llama.deltas.xor import CHUNK, OnBytes, xor_files
from ext.tinygrad.errors import TownhallError

NAME = re.compile(r"(.+)\.([0-9a-f]{64})\.enc")
DIGEST = 32


class DeltaError(TownhallError):
    """A delta, or its base, that cannot be used: names the file, the fault and the mend."""


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
    make_folder(out)
    for name in names:
        _check_target(out / name, base)
    job = _Job(base, on_bytes, spare_core=len(deltas) < cores())
    with report_truncation([base, *filter(Path.is_file, deltas)]):
        return _all_of(job, [partial(job.apply, delta, out / name) for delta, name in zip(deltas, names)])


def make(base: Path, plains: Sequence[Path], out: Path, on_bytes: OnBytes = lambda n: None) -> list[Path]:
    """Write each file's delta against `base` into `out` and return their paths."""
    _check_base(base)
    for plain in plains:
        _size(plain, "the file to make a delta of")
    if len({plain.name for plain in plains}) < len(plains):
        raise DeltaError("two files of the same name cannot become deltas in one folder; rename one, or use two folders")
    make_folder(out)
    job = _Job(base, on_bytes, spare_core=len(plains) < cores())
    with report_truncation([base, *plains]):
        return _all_of(job, [partial(job.make, plain, out) for plain in plains])


def _all_of(job: "_Job", calls: Sequence[Callable[[], Path]]) -> list[Path]:
    """What they return, or the first error once every file has come to its end. Ctrl-C ends them all at their next chunk."""
    with ThreadPoolExecutor(cores()) as files:
        running = [files.submit(call) for call in calls]
        try:
            errors = [error for one in running if (error := one.exception()) is not None]
        except BaseException:
            job.stopped.set()
            files.shutdown(wait=False, cancel_futures=True)
            raise
    if errors and isinstance(error := errors[0], OSError):
        raise DeltaError(f"{error.filename or 'a file'} cannot be read or written ({error.strerror}); mend that and run the command again")
    if errors:
        raise errors[0]
    return [one.result() for one in running]


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


def make_folder(out: Path) -> None:
    """For results, with the folders above it. DeltaError where it cannot be."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DeltaError(f"{out} cannot be a folder for the results ({error.strerror}); pass another as --out") from None


def _check_target(target: Path, base: Path) -> None:
    """A result replaces a file alone, and never the base."""
    if target.exists() and target.samefile(base):
        raise DeltaError(f"{target} is the base itself, which the result would replace; pass another folder as --out")
    if target.exists() and not target.is_file():
        raise _in_the_way(target)
    _part_of(target)


def _part_of(target: Path) -> Path:
    """What is written first, and renamed when it is whole; DeltaError where it is no file of ours: a link would lead elsewhere."""
    part = target.with_name(f"{target.name}.part")
    if part.is_symlink() or (part.exists() and not part.is_file()):
        raise _in_the_way(part)
    return part


def _in_the_way(path: Path) -> DeltaError:
    return DeltaError(f"{path} is there and is no plain file; remove it, or pass another folder as --out")


def _check_base(base: Path) -> None:
    if _size(base, "the base") == 0:
        raise DeltaError(f"{base}, the base, is empty; download it again")


class _Stopped(Exception):
    """Nobody waits for this file any more; what is there of it can be taken up again."""


@dataclass
class _Job:
    """What the files of one command share."""

    base: Path
    count: OnBytes
    spare_core: bool  # beside a thread for every file

    def __post_init__(self) -> None:
        self.stopped = threading.Event()

    def _on_bytes(self, n: int) -> None:
        if self.stopped.is_set():
            raise _Stopped
        self.count(n)

    def apply(self, delta: Path, target: Path) -> Path:
        size = _size(delta, "a delta")
        if size < DIGEST:
            raise DeltaError(f"{delta} has only {size} bytes: it is truncated; download it again")
        with delta.open("rb") as file:
            digest = file.read(DIGEST)
        if digest.hex() != plain_name(delta)[1]:
            raise DeltaError(f"{delta} begins with another digest than its name gives: it is damaged or renamed; download it again")
        if target.exists() and target.stat().st_size == size - DIGEST and _digest(target) == digest:
            self._on_bytes(size)
            return target
        part = _part_of(target)
        start = min(part.stat().st_size, size - DIGEST) // CHUNK * CHUNK if part.is_file() else 0
        found = self._plain(delta, part, start)
        if found != digest and start:  # the part may have been another's
            self._on_bytes(DIGEST - size)
            found = self._plain(delta, part, 0)
        if found != digest:
            part.unlink()
            raise DeltaError(f"{delta} does not give {target.name} with {self.base}: a wrong base, or a truncated delta; check both")
        self._on_bytes(DIGEST)
        part.replace(target)
        return target

    def _plain(self, delta: Path, part: Path, start: int) -> bytes:
        return xor_files(delta, self.base, part, self._on_bytes, source_header=DIGEST, start=start, spare_core=self.spare_core)

    def make(self, plain: Path, out: Path) -> Path:
        part = _part_of(out / f"{plain.name}.enc")
        try:
            digest = xor_files(plain, self.base, part, self._on_bytes, target_header=DIGEST, digest_source=True, spare_core=self.spare_core)
            with part.open("r+b") as file:
                file.write(digest)
            return part.replace(out / f"{plain.name}.{digest.hex()}.enc")
        except BaseException:  # nothing takes it up: its name is not known before its end
            part.unlink(missing_ok=True)
            raise


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
