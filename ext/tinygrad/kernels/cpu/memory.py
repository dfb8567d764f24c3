"""Memory in huge pages: decode reads every weight once a token, and with 4 KB pages the page walks cost a quarter of the bandwidth."""

import mmap
import threading

import numpy as np
from tinygrad import Tensor
from tinygrad.dtype import DType, dtypes

HUGE = 2 << 20
CHUNK = 64 << 20  # address space taken at a time; memory is only taken as it is written
ALIGNMENT = 64  # of every allocation: a cache line


class _Chunk:
    """A stretch of address space that begins at a huge page and is given out from its start."""

    def __init__(self, nbytes: int):
        size = -(-nbytes // HUGE) * HUGE
        private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_ANONYMOUS") else {}
        memory = mmap.mmap(-1, size + HUGE, **private)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            try:
                memory.madvise(mmap.MADV_HUGEPAGE)
            except OSError:
                pass  # a kernel without them: slower, not wrong
        whole = np.frombuffer(memory, np.uint8)
        start = -whole.ctypes.data % HUGE
        self.bytes, self.used = whole[start : start + size], 0

    def take(self, nbytes: int) -> np.ndarray | None:
        start = -(-self.used // ALIGNMENT) * ALIGNMENT
        if start + nbytes > len(self.bytes):
            return None
        self.used = start + nbytes
        return self.bytes[start : self.used]


_lock = threading.Lock()
_current: _Chunk | None = None


def allocate(nbytes: int) -> np.ndarray:
    """Zeroed uint8 memory; a chunk goes back to the system when nothing in it is referred to any more."""
    global _current
    with _lock:
        if _current is None or (taken := _current.take(nbytes)) is None:
            _current = _Chunk(max(nbytes, CHUNK))
            taken = _current.take(nbytes)
    assert taken is not None
    return taken


def as_tensor(array: np.ndarray, device: str = "CPU", dtype: DType = dtypes.uint8) -> Tensor:
    """The same memory as a flat realized tensor, which keeps it alive; no copy."""
    tensor = Tensor.from_blob(array.ctypes.data, (array.nbytes // dtype.itemsize,), dtype=dtype, device=device)
    tensor.uop.buffer._buf.meta = array  # lives as long as the buffer, whoever holds that
    return tensor
