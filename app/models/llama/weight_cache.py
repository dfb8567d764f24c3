"""Packed weights kept on disk, so that laying a checkpoint out is paid once: one file per checkpoint, read straight into huge pages.

A file is a header (JSON: what lies where, a digest per piece) and the packed bytes. It is read by a thread of its own, without the GIL,
while others import, build tokenizers or trace. What is missing, foreign or damaged is packed anew and written again. WEIGHT_CACHE=0
leaves the disk alone.
"""

import contextlib
import hashlib
import json
import os
import shutil
import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from app.models.llama.checkpoint.checkpoint import Checkpoint
from app.models.llama.checkpoint.stored import FLOATS, populate_pages
from ext.tinygrad import cache_files
from ext.tinygrad.kernels.cpu import memory
from ext.tinygrad.kernels.cpu.formats import FORMATS, VERSION
from ext.tinygrad.kernels.cpu.kernels import CPUKernels
from ext.tinygrad.kernels.cpu.weight import CPUWeight
from ext.tinygrad.kernels.protocol import Kernels, PackedWeight

MAGIC = b"townhall-weights-1\n"
PAGE = 4096  # the packed bytes begin at a multiple of it
PIECE = 64 << 20  # bytes read and checked at a time
WORDS = 8192  # of 8 bytes: what one checked sum covers
MOST_BYTES = 8 << 30  # all files together; the ones used longest ago go first
MOST_HEADER = 1 << 24
IN_PLACE = 1 << 30  # bytes of a checkpoint; smaller ones are packed, which decodes faster (huge pages) and is soon done
WORTH_IT = 8 << 20  # smaller checkpoints are packed faster than they are found
SAME_LAYOUT = ("opencl",)  # kernel sets that read what the CPU's reads, byte by byte


@dataclass(frozen=True)
class Entry:
    """One packed matrix."""

    format: str
    shape: tuple[int, int]
    start: int  # among the packed bytes
    nbytes: int
    file_bytes: int  # of the checkpoint

    @property
    def stop(self) -> int:
        return self.start + self.nbytes


def folder() -> Path:
    """Where the files are, in Townhall's part of the user's cache."""
    return cache_files.folder("weights")


class WeightCache:
    """The matrices of one checkpoint for one kernel set: from the disk where they are there, otherwise packed, and then kept.

    `matrix` may be called once per name. `close` writes what had to be packed, if anything.
    """

    def __init__(self, checkpoint: Checkpoint, kernels: Kernels, device: str):
        self._checkpoint, self._kernels, self._device = checkpoint, kernels, device
        self._packed: dict[str, tuple[PackedWeight, int]] = {}
        self._missed = False
        self._path: Path | None = None
        self._stored: _Stored | None = None
        # these kernels read floats where the file is mapped: packing many would cost seconds and as much memory again
        self._in_place = isinstance(kernels, CPUKernels) and device.split(":")[0] == "CPU" and checkpoint.nbytes >= IN_PLACE
        # only these kernels' layouts cost time to make, and OpenCL's kernels share them
        wanted = (isinstance(kernels, CPUKernels) or kernels.name in SAME_LAYOUT) and checkpoint.nbytes >= WORTH_IT
        if wanted and os.environ.get("WEIGHT_CACHE", "1") != "0":
            self._path = folder() / f"{checkpoint.fingerprint()[:32]}-{CPUKernels.name}-{VERSION}.packed"
            self._stored = _Stored.open(self._path)

    def matrix(self, name: str) -> tuple[PackedWeight, int]:
        """A matrix on the device, and how many bytes of the checkpoint it is."""
        if self._in_place and (there := self._where_it_is(name)):
            return there
        found = self._from_disk(name)
        if found is None:
            self._missed = True
            stored = self._checkpoint.matrix(name)
            found = self._kernels.pack(stored, self._device), stored.nbytes
            self._checkpoint.release(name)  # what was packed is not read again
        self._packed[name] = found
        return found

    def _where_it_is(self, name: str) -> tuple[PackedWeight, int] | None:
        if self._checkpoint.stored(name).type not in FLOATS:
            return None
        matrix = self._checkpoint.matrix(name)
        weight = CPUWeight.in_place(matrix, self._device)
        if matrix.data.base is None:
            self._checkpoint.release(name)  # a copy, its rows put in order: the file's own pages are of no more use
        else:
            populate_pages(matrix.data)  # now, with a progress bar, and not page by page while the first token is waited for
        return (weight, matrix.nbytes) if weight else None

    def _from_disk(self, name: str) -> tuple[PackedWeight, int] | None:
        if self._stored is None or (entry := self._stored.entries.get(name)) is None:
            return None
        if (packed := self._stored.bytes_of(entry)) is None:
            return None
        return CPUWeight.from_packed(FORMATS[entry.format], entry.shape, packed, self._device), entry.file_bytes

    def close(self) -> None:
        """Keep what was packed; a disk that is full or may not be written costs the next start its speed, nothing else."""
        if self._path is not None and self._missed:
            with contextlib.suppress(OSError):
                _save(self._path, self._packed)
        elif self._path is not None:
            cache_files.touch(self._path)
        self._packed, self._stored = {}, None


class _Stored:
    """A file being read by a thread of its own."""

    def __init__(self, file: BinaryIO, start: int, nbytes: int, entries: dict[str, Entry], digests: list[str]):
        self.entries, self._digests = entries, digests
        self._data = memory.Arena(nbytes).take(nbytes)
        self._sound = [False] * len(digests)
        self._read = [threading.Event() for _ in digests]
        threading.Thread(target=self._read_all, args=(file, start), name="weights", daemon=True).start()

    @classmethod
    def open(cls, path: Path) -> "_Stored | None":
        """Begin to read; None for a file that is not there, or whose header is not what `_save` writes."""
        try:
            file = path.open("rb", buffering=0)
        except OSError:
            return None
        try:
            return cls(file, *_read_header(file))
        except (ValueError, KeyError, TypeError, OSError, struct.error):
            file.close()
            return None

    def bytes_of(self, entry: Entry) -> np.ndarray | None:
        """The entry's packed bytes, as soon as they are there; None where they are damaged."""
        pieces = range(entry.start // PIECE, -(-entry.stop // PIECE))
        for piece in pieces:
            self._read[piece].wait()
        return self._data[entry.start : entry.stop] if all(self._sound[piece] for piece in pieces) else None

    def _read_all(self, file: BinaryIO, start: int) -> None:
        try:
            file.seek(start)
            for piece, digest in enumerate(self._digests):
                part = self._data[piece * PIECE : (piece + 1) * PIECE]
                done = 0
                while done < len(part) and (n := file.readinto(part[done:].data)):  # type: ignore[attr-defined]
                    done += n
                self._sound[piece] = done == len(part) and _digest(part) == digest
                self._read[piece].set()
        except OSError:
            pass
        finally:
            file.close()
            for event in self._read:
                event.set()


def _digest(data: np.ndarray) -> str:
    """Of damage, not of malice: a sum per 64 KB, and a cryptographic hash over the sums; as fast as memory is read."""
    words = data[: len(data) // 8 * 8].view(np.uint64)
    whole = len(words) // WORDS * WORDS
    total = hashlib.blake2b(words[:whole].reshape(-1, WORDS).sum(axis=1, dtype=np.uint64).tobytes(), digest_size=16)
    total.update(words[whole:].tobytes() + data[len(words) * 8 :].tobytes())
    return total.hexdigest()


def _read_header(file: BinaryIO) -> tuple[int, int, dict[str, Entry], list[str]]:
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
    entries = {name: Entry(e[0], (e[1], e[2]), *e[3:]) for name, e in header["entries"].items()}
    start, nbytes = _align(len(prefix) + length, PAGE), int(header["nbytes"])
    if os.fstat(file.fileno()).st_size != start + nbytes or len(header["digests"]) != -(-nbytes // PIECE):
        raise ValueError("the file is truncated")
    for entry in entries.values():
        if entry.stop > nbytes or entry.nbytes != FORMATS[entry.format].nbytes(*entry.shape):
            raise ValueError("an entry is damaged")
    return start, nbytes, entries, header["digests"]


def _save(path: Path, weights: Mapping[str, tuple[PackedWeight, int]]) -> None:
    """Write beside `path` and rename: a reader or a crash never meets half a file, and of two writers the last one stays."""
    entries, arrays, end = {}, [], 0
    for name, (weight, file_bytes) in weights.items():
        (tensor,) = weight.tensors
        packed = np.frombuffer(tensor.uop.base.realized.as_memoryview(), np.uint8)
        entries[name] = (weight.layout[0].name, *weight.shape, end, packed.nbytes, file_bytes)
        arrays.append((end, packed))
        end = _align(end + packed.nbytes, memory.ALIGNMENT)
    if end > min(MOST_BYTES, shutil.disk_usage(_existing(path)).free // 2):
        return
    cache_files.make_room(path, end, MOST_BYTES)
    with cache_files.written(path) as part, part.open("wb") as file:
        # digests are of the same length whatever they are, so the header is written first with room for them
        header = _header(entries, end, ["0" * 32] * -(-end // PIECE))
        file.seek(start := _align(len(header), PAGE))
        digests, piece, filled = [], np.zeros(min(PIECE, end), np.uint8), 0
        for data in _laid_out(arrays, end):
            while len(data):
                taken = data[: len(piece) - filled]
                piece[filled : filled + len(taken)] = taken
                filled, data = filled + len(taken), data[len(taken) :]
                if filled == len(piece):
                    digests.append(_digest(piece))
                    file.write(piece.data)
                    filled = 0
        if filled:
            digests.append(_digest(piece[:filled]))
            file.write(piece[:filled].data)
        assert file.tell() == start + end
        file.seek(0)
        file.write(_header(entries, end, digests))


def _laid_out(arrays: list[tuple[int, np.ndarray]], end: int) -> Any:
    """The arrays in their order with zeros between, so that each begins where it should."""
    starts = [start for start, _ in arrays[1:]] + [end]
    for (start, array), following in zip(arrays, starts):
        yield array
        yield np.zeros(following - start - array.nbytes, np.uint8)


def _header(entries: Mapping[str, Any], nbytes: int, digests: list[str]) -> bytes:
    text = json.dumps({"nbytes": nbytes, "digests": digests, "entries": entries}, separators=(",", ":")).encode()
    return MAGIC + struct.pack("<Q", len(text)) + hashlib.blake2b(text, digest_size=16).digest() + text


def _existing(path: Path) -> Path:
    """The nearest folder above that is there."""
    return next(parent for parent in path.parents if parent.exists())


def _align(n: int, to: int) -> int:
    return -(-n // to) * to
