"""Floats to Q8_0 in one pass of C; the gguf package's NumPy takes some thirty."""

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ext.tinygrad.c_function import compiled
from ext.tinygrad.kernels.matrix import QuantMatrix

SOURCE = Path(__file__).with_name("quantize_q8_0.c")
TYPES = ("F32", "F16", "BF16")
BLOCK, BYTES = 32, 34  # weights, and what they become


def quantize_q8_0(matrix: QuantMatrix) -> np.ndarray | None:
    """uint8 (rows, cols / 32 * 34) of a float matrix, as gguf.quants.quantize makes it; None for other types, and where there is no C."""
    rows, cols = matrix.shape
    if matrix.type not in TYPES or cols % BLOCK or (call := _native(matrix.type)) is None:
        return None
    data = np.ascontiguousarray(matrix.data)
    out = np.empty((rows, cols // BLOCK * BYTES), np.uint8)
    call(data.ctypes.data, out.ctypes.data, rows * cols // BLOCK)
    return out


@functools.cache
def _native(type: str) -> Callable[[int, int, int], None] | None:
    """(rows' address, the result's, blocks)."""
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long)
    return compiled("quantize", f"#define TYPE_{type} 1\n{SOURCE.read_text()}", prototype)
