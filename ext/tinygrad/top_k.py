"""The largest of many numbers in one pass of C. NumPy's dozen calls are out of every cache between two tokens: 140 µs for a vocabulary."""

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ext.tinygrad.c_function import compiled

SOURCE = Path(__file__).with_name("top_k.c")
MOST = 256  # numbers kept in order as they come; beyond that a partition is quicker
Native = Callable[[int, int, int, int, int], int]


class TopK:
    """Finds the largest of float32 arrays; its results are valid until the next call."""

    def __init__(self) -> None:
        self._ids, self._scores = np.empty(MOST, np.int32), np.empty(MOST, np.float32)
        self._places = self._ids.ctypes.data, self._scores.ctypes.data

    def __call__(self, values: np.ndarray, k: int) -> tuple[list[int], list[float]] | None:
        """(indices, values) of the k largest, falling, of equal ones the first; fewer where NaN leaves fewer. None where there is no C."""
        call = native()
        if call is None or not values.flags.c_contiguous or values.dtype != np.float32:
            return None
        assert 0 < k <= MOST, k
        held = call(values.ctypes.data, values.size, *self._places, k)
        return self._ids[:held].tolist(), self._scores[:held].tolist()


@functools.cache
def native() -> Native | None:
    """The compiled function, or None: the caller has NumPy."""
    prototype = ctypes.PYFUNCTYPE(ctypes.c_long, ctypes.c_void_p, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long)
    return compiled("top_k", SOURCE.read_text(), prototype)
