"""Lists of digests as md5sum and sha256sum write them, and files held against them."""

import hashlib
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from app.models.llama.checkpoint.cores import cores
from app.models.llama.deltas.xor import OnBytes
from app.models.llama.sanitize import quoted
from ext.tinygrad.errors import TownhallError

PUBLISHED = {"point-alpaca": Path(__file__).parent / "data" / "point-alpaca.md5"}
ALGORITHMS = {32: "md5", 40: "sha1", 64: "sha256", 128: "sha512"}  # by hexadecimal digits
LINE = re.compile(r"\\?([0-9a-fA-F]+) [ *](.+)")
MAX_LIST = 1 << 24
BLOCK = 1 << 20


class ChecksumError(TownhallError):
    """A list of digests that cannot be used."""


@dataclass(frozen=True)
class Checksum:
    algorithm: str
    digest: str
    name: str


def read_list(path: Path) -> list[Checksum]:
    """The lines of a list; `path` may also be the name of a published one. ChecksumError, with the line, for anything else."""
    path = PUBLISHED.get(str(path), path)
    if not path.is_file():
        raise ChecksumError(f"{path} is no list of checksums; pass a file that md5sum or sha256sum wrote, or {', '.join(PUBLISHED)}")
    with path.open("rb") as file:
        data = file.read(MAX_LIST + 1)
    if len(data) > MAX_LIST:
        raise ChecksumError(f"{path} has more than {MAX_LIST:,} bytes; pass a list of checksums")
    entries = []
    for n, line in enumerate(data.decode("utf-8", "backslashreplace").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = LINE.fullmatch(line)
        if match is None or len(match[1]) not in ALGORITHMS or not match[2].isprintable():
            raise ChecksumError(f"{path}, line {n}, reads {quoted(line)}; a digest, two spaces and a file name are needed")
        entries.append(Checksum(ALGORITHMS[len(match[1])], match[1].lower(), match[2]))
    if not entries:
        raise ChecksumError(f"{path} lists no files; pass a list of checksums")
    return entries


def verify(entries: Sequence[Checksum], root: Path, on_bytes: OnBytes = lambda n: None) -> list[tuple[Checksum, str]]:
    """Each entry with "OK", "FAILED" or "missing"; files are read in parallel."""

    def check(entry: Checksum) -> tuple[Checksum, str]:
        path = root / entry.name
        if not path.is_file():
            return entry, "missing"
        return entry, "OK" if digest(path, entry.algorithm, on_bytes) == entry.digest else "FAILED"

    with ThreadPoolExecutor(cores()) as pool:
        return list(pool.map(check, entries))


def digest(path: Path, algorithm: str, on_bytes: Callable[[int], object] = lambda n: None) -> str:
    """Hexadecimal digest of a file."""
    state = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb", buffering=0) as file:
        while block := file.read(BLOCK):
            state.update(block)
            on_bytes(len(block))
    return state.hexdigest()
