"""KV rows of 8-bit blocks in NumPy: 32 values are integers with one float16 scale; a row is its integers, then its scales."""

import numpy as np


def quantise(values: np.ndarray) -> np.ndarray:
    """(…, Hd) to uint8 (…, Hd + Hd / 16), computed in float64."""
    *shape, head_dim = values.shape
    blocks = values.astype(np.float64).reshape(*shape, head_dim // 32, 32)
    scales = (np.abs(blocks).max(-1) / 127).astype(np.float16)
    divisors = np.where(scales > 0, scales, np.inf).astype(np.float64)
    quants = np.clip(np.rint(blocks / divisors[..., None]), -127, 127).astype(np.int8)
    return np.concatenate([quants.reshape(*shape, head_dim).view(np.uint8), scales.view(np.uint8)], axis=-1)


def dequantise(rows: np.ndarray) -> np.ndarray:
    """uint8 (…, Hd + Hd / 16) to float64 (…, Hd)."""
    *shape, elements = rows.shape
    head_dim = elements * 16 // 17
    quants = rows[..., :head_dim].copy().view(np.int8).reshape(*shape, head_dim // 32, 32)
    return (quants * scales_of(rows)[..., None]).reshape(*shape, head_dim)


def scales_of(rows: np.ndarray) -> np.ndarray:
    """float64 (…, Hd / 32)."""
    head_dim = rows.shape[-1] * 16 // 17
    return rows[..., head_dim:].copy().view(np.float16).astype(np.float64)
