"""What the system is asked to do with the pages of a memory map. Advice: where it is not taken, everything works as it did, only slower."""

import ctypes
import functools
import mmap
import sys
from collections.abc import Callable

import numpy as np

from ext.tinygrad import numa

MADV_POPULATE_READ, MADV_POPULATE_WRITE = 22, 23  # since Linux 5.14; Python has no names for them


def populate(view: np.ndarray) -> None:
    """Read the stretch of a file that `view` maps, front to back, in huge pages where the file system has them; others run meanwhile.

    On Linux from 6.16 on ext4 and XFS keep files in pages of 2 MB if they are asked to, and those are mapped as they are.
    """
    if huge := getattr(mmap, "MADV_HUGEPAGE", None):
        _advise(view, huge)
    if sys.platform == "linux":
        with numa.spread_reads():
            _advise(view, MADV_POPULATE_READ)


def take(view: np.ndarray) -> None:
    """Have the system give the memory that `view` is to be written to, which it does at the first write otherwise; others run meanwhile.

    What stands there stays."""
    if sys.platform == "linux":
        _advise(view, MADV_POPULATE_WRITE)


def release(view: np.ndarray) -> None:
    """Let the system take back the pages of a file that `view` maps; they are read again when touched. Other memory is left alone."""
    root: object = view
    while isinstance(root, np.ndarray):
        root = root.base
    if isinstance(root, memoryview):
        root = root.obj
    if isinstance(root, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        _advise(view, mmap.MADV_DONTNEED)


def _advise(view: np.ndarray, advice: int) -> None:
    if call := _madvise():
        start = view.ctypes.data // mmap.PAGESIZE * mmap.PAGESIZE
        call(start, view.ctypes.data + view.nbytes - start, advice)


@functools.cache
def _madvise() -> Callable[[int, int, int], int] | None:
    """The C library's: unlike mmap.madvise it lets go of the interpreter."""
    try:
        call = ctypes.CDLL(None).madvise
    except (OSError, AttributeError, TypeError):  # no POSIX
        return None
    call.argtypes, call.restype = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int), ctypes.c_int
    found: Callable[[int, int, int], int] = call
    return found
