"""Packed weights kept on disk, so that laying a checkpoint out is paid once: one file per checkpoint (packed_file.py).

What is missing or damaged there is packed again and written by a background thread. WEIGHT_CACHE=0 leaves the disk alone. `ReadAhead`
reads the next matrices of a checkpoint while one is packed, so that neither the disk nor the cores wait.
"""

import atexit
import os
import shutil
import threading
from pathlib import Path

import numpy as np

from app.models.llama import packed_file
from app.models.llama.checkpoint.checkpoint import Checkpoint
from app.models.llama.checkpoint.files import FLOATS
from app.models.llama.packed_file import Packed, PackedFile
from ext.tinygrad import cache_files, sigbus
from ext.tinygrad.kernels.packed.formats import FORMATS, LAYOUT, VERSION
from ext.tinygrad.kernels.packed.packed_matrix import PackedMatrix
from ext.tinygrad.kernels.protocol import Kernels, PackedWeight

PATIENCE = 60.0  # seconds without anything taken, after which the reader is taken to have given up
AHEAD = 1 << 28  # bytes: enough to keep a disk busy, too little to drive other pages out of a small memory


class ReadAhead:
    """A thread that reads in the file's order, `AHEAD` bytes before what was taken in all. It may be taken in any order."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint, self._left = checkpoint, AHEAD
        self._changed, self._closed = threading.Condition(), False
        threading.Thread(target=self._read, name="read ahead", daemon=True).start()

    def take(self, name: str) -> None:
        """Have this matrix read, whether its turn has come or not."""
        self._checkpoint.prefetch(name)
        with self._changed:
            self._left += self._checkpoint.stored(name).nbytes
            self._changed.notify()

    def close(self) -> None:
        """Nothing more is read."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _read(self) -> None:
        for name in self._checkpoint.tensor_names:
            with self._changed:
                if not self._changed.wait_for(lambda: self._closed or self._left > 0, PATIENCE) or self._closed:
                    return
                self._left -= self._checkpoint.stored(name).nbytes
            self._checkpoint.prefetch(name)


MOST_BYTES = 8 << 30  # all files together; the ones used longest ago go first
IN_PLACE = 1 << 30  # bytes of a checkpoint that is used where files are mapped; a smaller one is soon read into memory's own huge pages
WORTH_IT = 8 << 20  # smaller checkpoints are packed faster than they are found
SOON_WRITTEN = 1 << 28  # bytes; the end of the process waits for them, but not for more


def folder() -> Path:
    """Where the files are, in Townhall's part of the user's cache."""
    return cache_files.folder("weights")


class WeightCache:
    """The matrices of one checkpoint for one kernel set: from the disk where they are there, otherwise packed, and then kept.

    `matrix` may be called once per name. `close` begins to write what had to be packed, if anything.
    """

    def __init__(self, checkpoint: Checkpoint, kernels: Kernels, device: str):
        self._checkpoint, self._kernels, self._device = checkpoint, kernels, device
        self._packed: dict[str, tuple[PackedWeight, int]] = {}
        self._ahead: ReadAhead | None = None
        self._path: Path | None = None
        self._stored: PackedFile | None = None
        sigbus.expect(checkpoint.path)
        packed = kernels.layout == LAYOUT
        # on the CPU weights are read where a file is mapped: copying many would cost seconds and as much memory again
        self._in_place = packed and device.split(":")[0] == "CPU" and checkpoint.nbytes >= IN_PLACE
        wanted = packed and checkpoint.nbytes >= WORTH_IT
        if wanted and os.environ.get("WEIGHT_CACHE", "1") != "0":
            self._path = folder() / f"{checkpoint.fingerprint()[:32]}-{LAYOUT}-{VERSION}.packed"
            self._stored = PackedFile.open(self._path, self._in_place)
            if self._stored and self._in_place:
                sigbus.expect(self._path)

    def matrix(self, name: str) -> tuple[PackedWeight, int]:
        """A matrix on the device, and how many bytes of the checkpoint it is."""
        if self._in_place and (there := self._where_it_is(name)):
            return there
        found = self._from_disk(name)
        if found is None:
            self._ahead = self._ahead or ReadAhead(self._checkpoint)
            self._ahead.take(name)
            stored = self._checkpoint.matrix(name)
            found = self._kernels.pack(stored, self._device), stored.nbytes
            self._checkpoint.release(name)  # what was packed is not read again
        self._packed[name] = found
        return found

    def _where_it_is(self, name: str) -> tuple[PackedWeight, int] | None:
        if self._checkpoint.stored(name).type not in FLOATS:
            return None
        matrix = self._checkpoint.matrix(name)
        weight = PackedMatrix.in_place(matrix, self._device)
        if matrix.data.base is None:
            self._checkpoint.release(name)  # a copy, its rows put in order: the file's own pages are of no more use
        else:
            self._checkpoint.prefetch(name)  # now, with a progress bar, and not page by page while the first token is waited for
        return (weight, matrix.nbytes) if weight else None

    def _from_disk(self, name: str) -> tuple[PackedWeight, int] | None:
        if self._stored is None or (entry := self._stored.entries.get(name)) is None:
            return None
        if (packed := self._stored.bytes_of(entry)) is None:
            return None
        return PackedMatrix.from_packed(FORMATS[entry.format], entry.shape, packed, self._device), entry.file_bytes

    def close(self) -> None:
        """Keep what was packed; a disk that is full or may not be written costs the next start its speed, nothing else."""
        if self._ahead is not None:
            self._ahead.close()
        if self._path is not None and self._ahead is not None and not any(writer.path == self._path for writer in list(_Writer.running)):
            _Writer(self._path, self._packed).start()
        elif self._path is not None:
            cache_files.touch(self._path)
        self._packed, self._stored = {}, None


def _packed(weight: PackedWeight, file_bytes: int) -> Packed:
    (tensor,) = weight.tensors
    data = np.frombuffer(tensor.uop.base.realized.as_memoryview(allow_zero_copy=True), np.uint8)
    return Packed(weight.layout[0].name, weight.shape, data, file_bytes)


class _Writer(threading.Thread):
    """Writes one file while the model is used already."""

    running: "set[_Writer]" = set()

    def __init__(self, path: Path, weights: dict[str, tuple[PackedWeight, int]]):
        super().__init__(name="keep weights", daemon=True)
        self.path, self._weights = path, weights  # whose memory is written
        self._matrices = {name: _packed(*found) for name, found in weights.items()}
        self.nbytes = packed_file.packed_bytes(self._matrices)
        self.given_up = False
        self.running.add(self)

    def run(self) -> None:
        try:
            if self.nbytes <= min(MOST_BYTES, shutil.disk_usage(_existing(self.path)).free // 2):
                cache_files.make_room(self.path, self.nbytes, MOST_BYTES)
                packed_file.write(self.path, self._matrices, lambda: self.given_up)
        except OSError:
            pass  # the next start packs again
        finally:
            self.running.discard(self)


def settle() -> None:
    """Wait until everything that was packed is kept."""
    for writer in list(_Writer.running):
        writer.join()


@atexit.register
def _leave() -> None:
    """What would take long is left, and nothing half-written stays: packing it again is quicker than to wait for a disk."""
    for writer in list(_Writer.running):
        writer.given_up = writer.nbytes > SOON_WRITTEN
    settle()


def _existing(path: Path) -> Path:
    """The nearest folder above that is there."""
    return next(parent for parent in path.parents if parent.exists())
