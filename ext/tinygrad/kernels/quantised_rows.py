"""Rows of a KV cache as 8-bit blocks: 32 values are integers with one float16 scale, as llama.cpp's q8_0 has them.

A row, one position of one head, is its Hd integers and then its Hd / 32 scales: Hd + Hd / 16 bytes, where float16 takes 2 Hd. So a cache is
(KvH, rows, Hd + Hd / 16) uint8, and whatever copies rows need not know what is in them. A scale is the block's largest magnitude / 127,
rounded to float16, and that is what values are divided by: an entry differs from its value by half a scale at most, and what was read of a
row comes out the same when it is stored again. (A float16 below 2**-14 has fewer digits: blocks whose values are all below 0.008 may differ
by 4e-6 more.)
"""

from tinygrad import Tensor, dtypes
from tinygrad.dtype import DType

BLOCK = 32  # values of a scale
QUANTISED = dtypes.uint8  # of a cache's tensors


def row_elements(head_dim: int, dtype: DType) -> int:
    """Elements of one head's row in a cache of this type."""
    return head_dim + head_dim // 16 if dtype == QUANTISED else head_dim


def head_dim_of(cache: Tensor) -> int:
    """Hd of a cache (…, rows, elements of a row)."""
    elements = int(cache.shape[-1])
    return elements * 16 // 17 if cache.dtype == QUANTISED else elements


def quantise(x: Tensor) -> Tensor:
    """Floats (…, Hd) to rows, uint8 (…, Hd + Hd / 16)."""
    *shape, head_dim = x.shape
    blocks = x.cast(dtypes.float32).reshape(*shape, head_dim // BLOCK, BLOCK)
    bits = _half_bits(blocks.abs().max(-1) / 127).contiguous()  # (…, Hd / 32)
    divisors = _half_value(bits).unsqueeze(-1)
    quants = (blocks * (divisors > 0).where(1 / divisors, 0)).round().clip(-127, 127).cast(dtypes.int8)
    halves = Tensor.stack(bits & 255, bits >> 8, dim=-1).cast(dtypes.uint8)  # the low byte first
    return quants.reshape(*shape, head_dim).bitcast(dtypes.uint8).cat(halves.reshape(*shape, head_dim // 16), dim=-1).contiguous()


def dequantise(rows: Tensor) -> Tensor:
    """Rows, uint8 (…, Hd + Hd / 16), to float32 (…, Hd)."""
    *shape, _ = rows.shape
    head_dim = head_dim_of(rows)
    halves = rows[..., head_dim:].reshape(*shape, head_dim // BLOCK, 2).cast(dtypes.uint16)
    scales = _half_value(halves[..., 0] + halves[..., 1] * 256)  # (…, Hd / 32)
    quants = rows[..., :head_dim].bitcast(dtypes.int8).reshape(*shape, head_dim // BLOCK, BLOCK)
    return (quants.cast(dtypes.float32) * scales.unsqueeze(-1)).reshape(*shape, head_dim)


def _half_bits(x: Tensor) -> Tensor:
    """Positive float32 rounded to float16, as its bits. Below 2**-14, which drivers may make 0, they count units of 2**-24."""
    return (x < 2**-14).where((x * 2**24).round().cast(dtypes.uint16), x.cast(dtypes.float16).bitcast(dtypes.uint16))


def _half_value(bits: Tensor) -> Tensor:
    """float32 of the bits of a positive float16."""
    return (bits < 1024).where(bits.cast(dtypes.float32) * 2**-24, bits.bitcast(dtypes.float16).cast(dtypes.float32))


def floats_of(cache: Tensor) -> Tensor:
    """A cache of any type as float32 (…, rows, Hd)."""
    return dequantise(cache) if cache.dtype == QUANTISED else cache.cast(dtypes.float32)
