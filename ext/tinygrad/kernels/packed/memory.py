"""Memory in huge pages: decode reads every weight once a token, and with 4 KB pages the page walks cost a quarter of the bandwidth."""

import ctypes
import functools
import math
import mmap
import sys
import threading
from typing import Any

import numpy as np
from tinygrad import Device, Tensor, UOp
from tinygrad.dtype import DType, dtypes

from ext.tinygrad import numa

HUGE = 2 << 20
CHUNK = 64 << 20  # address space taken at a time for weights; memory is only taken as it is written
ALIGNMENT = 64  # of every allocation: a cache line
GIVES_BACK = sys.platform == "linux"  # can `clear` give memory back? Elsewhere the advice has another meaning
MADV_DONTNEED = 4


class Arena:
    """A stretch of zeroed memory in huge pages, given out from its start; it goes back when nothing in it is referred to any more."""

    def __init__(self, nbytes: int, huge: bool = True, spread: bool = False):
        """Without `huge` pages parts of it can be given back (`clear`). `spread`: over the memory's nodes, for what all threads read."""
        size = -(-nbytes // HUGE) * HUGE
        private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_ANONYMOUS") else {}
        memory = mmap.mmap(-1, size + HUGE, **private)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            try:
                memory.madvise(mmap.MADV_HUGEPAGE if huge else mmap.MADV_NOHUGEPAGE)
            except OSError:
                pass  # a kernel without them: slower, not wrong
        whole = np.frombuffer(memory, np.uint8)
        start = -whole.ctypes.data % HUGE
        self._bytes, self._used = whole[start : start + size], 0
        if spread:
            numa.spread(self._bytes)

    def has_room(self, nbytes: int) -> bool:
        return self._used + nbytes <= len(self._bytes)

    def take(self, nbytes: int) -> np.ndarray:
        """uint8 (nbytes,), aligned to a cache line."""
        assert self.has_room(nbytes), f"{nbytes} bytes do not fit"
        start = self._used
        self._used += -(-nbytes // ALIGNMENT) * ALIGNMENT
        return self._bytes[start : start + nbytes]

    def zeros(self, *shape: int, dtype: DType, device: str = "CPU") -> Tensor:
        """A realized tensor of zeros."""
        return as_tensor(self.take(math.prod(shape) * dtype.itemsize), device, dtype, shape)


def clear(part: np.ndarray) -> None:
    """Make a contiguous part of an arena zeros; whole pages of it go back to the system until they are written again."""
    flat = part.reshape(-1).view(np.uint8)
    first = -flat.ctypes.data % mmap.PAGESIZE
    whole = (len(flat) - first) // mmap.PAGESIZE * mmap.PAGESIZE
    if whole <= 0 or not GIVES_BACK or _madvise()(flat.ctypes.data + first, whole, MADV_DONTNEED):
        flat[:] = 0
        return
    flat[:first] = flat[first + whole :] = 0


@functools.cache
def _madvise() -> Any:
    found = ctypes.CDLL(None).madvise
    found.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return found


_lock = threading.Lock()
_current: Arena | None = None


def allocate(nbytes: int) -> np.ndarray:
    """Zeroed uint8 memory for what lives long, in an arena shared with others of its kind."""
    global _current
    with _lock:
        if _current is None or not _current.has_room(nbytes):
            _current = Arena(max(nbytes, CHUNK), spread=True)
        return _current.take(nbytes)


def as_tensor(array: np.ndarray, device: str = "CPU", dtype: DType = dtypes.uint8, shape: tuple[int, ...] | None = None) -> Tensor:
    """The same memory as a realized tensor, flat unless it has a shape, which keeps it alive; no copy."""
    # what Tensor.from_blob does, without the reshaping and shrinking that it has undone again: a model has 300 of them
    uop = UOp.new_buffer(Device.canonicalize(device), array.nbytes // dtype.itemsize, dtype)
    uop.buffer.allocate(external_ptr=array.ctypes.data)
    uop.buffer._buf.meta = array  # lives as long as the buffer
    return Tensor(uop if shape is None else uop.reshape(shape))
