"""What the CPU kernels must compute, in NumPy: float64 arithmetic over activations that are quantised as the kernels quantise them."""

import numpy as np

from ext.tinygrad.kernels.matrix import QuantMatrix

# where a block keeps its f16 numbers, for types that do not begin with one
HALVES = {"Q4_1": (0, 2), "Q5_1": (0, 2), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "Q2_K": (80, 82), "Q3_K": (108,)}
# columns and bytes of a block, where its f16 scales are
MADE_OF_BYTES = {"Q4_K": (256, 144, slice(0, 4)), "Q5_K": (256, 176, slice(0, 4)), "Q6_K": (256, 210, slice(208, 210))}
MADE_OF_BYTES |= {"IQ4_NL": (32, 18, slice(0, 2)), "IQ4_XS": (256, 136, slice(0, 2)), "Q2_K": (256, 84, slice(80, 84))}
MADE_OF_BYTES["Q3_K"] = (256, 110, slice(108, 110))
GAIN = {"Q2_K": 1 / 20, "Q3_K": 1 / 50, "Q4_K": 1 / 600, "Q5_K": 1 / 1200, "Q6_K": 1 / 1500, "IQ4_NL": 1 / 60, "IQ4_XS": 1 / 1000}


def random_matrix(rng: np.random.Generator, type: str, rows: int, cols: int) -> QuantMatrix:
    """A weight of about unit gain; types that gguf cannot write are made of random bytes under sensible scales."""
    if type not in MADE_OF_BYTES:
        return QuantMatrix.from_float32(rng.standard_normal((rows, cols)).astype(np.float32) / np.float32(cols**0.5), type)
    block, size, field = MADE_OF_BYTES[type]
    blocks = rng.integers(0, 256, (rows, cols // block, size), dtype=np.uint8)
    gain = GAIN[type] / cols**0.5
    scales = rng.uniform(0.5, 1.5, (rows, cols // block, (field.stop - field.start) // 2)) * gain
    blocks[..., field] = scales.astype(np.float16).view(np.uint8)
    return QuantMatrix(type, (rows, cols), blocks.reshape(rows, -1))


def quantized(x: np.ndarray) -> np.ndarray:
    """Float32 (T, cols) to int8 per 32 columns and back, float64: what integer weights are multiplied with."""
    parts = x.astype(np.float32).reshape(len(x), -1, 32)
    peak = np.abs(parts).max(-1, keepdims=True)
    inverse = np.divide(np.float32(127), peak, out=np.zeros_like(peak), where=peak > 0)
    scale = (peak / np.float32(127)).astype(np.float64)
    return (np.rint(parts * inverse) * scale).reshape(x.shape)


def rms_norm(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    mean = np.square(x.astype(np.float64)).mean(-1, keepdims=True)
    return (x * (1 / np.sqrt(mean + eps)).astype(np.float32) * weight).astype(np.float32)


def matmul(x: np.ndarray, matrix: QuantMatrix) -> np.ndarray:
    """x @ W.T as the kernels do it for this type: float activations for float weights, int8 ones for the rest."""
    left = x.astype(np.float64) if matrix.type in ("F32", "F16", "BF16") else quantized(x)
    return left @ matrix.dequantize().astype(np.float64).T


def rotate(x: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """RoPE on adjacent pairs of (T, n, Hd) by (T, Hd / 2, 2)."""
    cos, sin = angles[:, None, :, 0], angles[:, None, :, 1]
    even, odd = x[..., 0::2], x[..., 1::2]
    return np.stack([even * cos - odd * sin, odd * cos + even * sin], -1).reshape(x.shape)


def attend(q: np.ndarray, k: np.ndarray, v: np.ndarray, start_pos: int, window: int = 0) -> np.ndarray:
    """(T, H, Hd) over caches (KvH, rows, Hd) -> (T, H * Hd); a token sees `window` positions, 0: all."""
    T, heads, head_dim = q.shape
    out = np.zeros((T, heads, head_dim))
    for t in range(T):
        end = start_pos + t + 1
        seen = slice(max(0, end - window) if window else 0, end)
        for h in range(heads):
            keys, values = (c[h * len(c) // heads, seen].astype(np.float64) for c in (k, v))
            scores = keys @ q[t, h].astype(np.float64) * head_dim**-0.5
            weights = np.exp(scores - scores.max())
            out[t, h] = weights @ values / weights.sum()
    return out.reshape(T, -1)


def assert_close(actual: np.ndarray, expected: np.ndarray, *, normed: bool = False, tolerance: float = 1e-5) -> None:
    """Within `tolerance` of the largest value.

    After a norm, whose last digits may differ, an activation may round to the neighbouring int8: then a few tokens may be off by up to 1 %.
    """
    assert actual.shape == expected.shape and np.isfinite(actual).all()
    error = np.abs(actual - expected).reshape(len(expected), -1).max(-1) / np.abs(expected).max()  # by token
    assert error.max() < (0.01 if normed else tolerance), f"off by {error.max():.2e} of the largest value"
    off = int((error > tolerance).sum())
    assert off <= (1 + len(error) // 20 if normed else 0), f"{off} of {len(error)} tokens are off"
