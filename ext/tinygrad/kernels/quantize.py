"""float32 to Q4_K and floats to Q8_0.

The gguf package only reads Q4_K; this is ggml's search for scale and minimum (make_qkx2_quants and quantize_row_q4_K_ref of llama.cpp's
ggml-quants.c, with fewer candidates), over many blocks at once. Q8_0 takes one pass of C, where the gguf package's NumPy takes some thirty.
"""

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ext.tinygrad.c_function import compiled
from ext.tinygrad.kernels.matrix import QuantMatrix

SUPER_BLOCK, GROUP, GROUPS = 256, 32, 8
SUPER_BLOCK_BYTES = 144
LEVELS = 15
CANDIDATES = (-0.9, -0.6, -0.3, 0.0, 0.3, 0.6, 0.9)  # how much finer or coarser a grid is tried


def quantize_q4_k(values: np.ndarray) -> np.ndarray:
    """float32 (rows, cols), cols a multiple of 256, to uint8 (rows, cols / 256 * 144)."""
    rows, cols = values.shape
    assert cols % SUPER_BLOCK == 0, cols
    x = np.ascontiguousarray(values, np.float32).reshape(-1, GROUPS, GROUP)
    scales, minima = _fit(x)  # (n, GROUPS) each; weight = scale * quant - minimum
    scale_step, minimum_step = scales.max(-1, keepdims=True) / 63, minima.max(-1, keepdims=True) / 63
    d, dmin = scale_step.astype(np.float16), minimum_step.astype(np.float16)
    six_scales, six_minima = _levels(scales, scale_step, 63), _levels(minima, minimum_step, 63)
    # what will be read back decides the integers
    real_scales, real_minima = d.astype(np.float32) * six_scales, dmin.astype(np.float32) * six_minima
    quants = _levels(x + real_minima[..., None], real_scales[..., None], LEVELS)
    out = np.empty((len(x), SUPER_BLOCK_BYTES), np.uint8)
    out[:, 0:2], out[:, 2:4] = d.view(np.uint8), dmin.view(np.uint8)
    out[:, 4:8] = six_scales[:, :4] | (six_scales[:, 4:] >> 4 << 6)
    out[:, 8:12] = six_minima[:, :4] | (six_minima[:, 4:] >> 4 << 6)
    out[:, 12:16] = (six_scales[:, 4:] & 15) | (six_minima[:, 4:] & 15) << 4
    out[:, 16:] = (quants[:, 0::2] | quants[:, 1::2] << 4).reshape(len(x), 128)
    return out.reshape(rows, -1)


def _levels(x: np.ndarray, step: np.ndarray, top: int) -> np.ndarray:
    """x in steps, rounded, from 0 to top; 0 where a step is nothing."""
    inverse = np.divide(1, step, out=np.zeros_like(step), where=step > 0)
    return np.clip(np.rint(x * inverse), 0, top).astype(np.uint8)


def _fit(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale and minimum (below zero, given positive) of every group, by weighted least squares over a few grids."""
    weights = np.sqrt(np.square(x).mean(-1, keepdims=True)) + np.abs(x)
    low, high = np.minimum(x.min(-1, keepdims=True), 0), x.max(-1, keepdims=True)
    span = high - low
    flat = span[..., 0] <= 0
    span = np.where(span > 0, span, 1)
    best_scale, best_low = span[..., 0] / LEVELS, low[..., 0].copy()
    best_error = np.full(best_scale.shape, np.inf, np.float32)
    total, weighted = weights.sum(-1), (weights * x).sum(-1)
    for finer in CANDIDATES:
        q = np.clip(np.rint((x - low) * ((LEVELS + finer) / span)), 0, LEVELS)
        wq = weights * q
        sum_q, sum_q2, sum_xq = wq.sum(-1), (wq * q).sum(-1), (wq * x).sum(-1)
        determinant = total * sum_q2 - sum_q * sum_q
        sound = determinant > 0
        safe = np.where(sound, determinant, 1)
        scale, offset = (total * sum_xq - weighted * sum_q) / safe, (sum_q2 * weighted - sum_q * sum_xq) / safe
        above = offset > 0
        scale = np.where(above, sum_xq / np.where(sum_q2 > 0, sum_q2, 1), scale)
        offset = np.where(above, 0, offset)
        error = (weights * np.square(scale[..., None] * q + offset[..., None] - x)).sum(-1)
        better = sound & (error < best_error) & (scale > 0)
        best_error = np.where(better, error, best_error)
        best_scale, best_low = np.where(better, scale, best_scale), np.where(better, offset, best_low)
    best_scale = np.where(flat, 0, best_scale).astype(np.float32)
    return best_scale, np.where(flat, -low[..., 0], -best_low).astype(np.float32)


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
