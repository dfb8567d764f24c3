"""A weight matrix as its file stores it: quantised rows of bytes, not yet laid out for any device.

`to_blocks` takes them apart into integers, scales and minima, without a loss, for every ggml type that is built of such groups. Layouts
after ggml-quants.h of llama.cpp. Types that are no integers times scales (F16, BF16, F32, codebooks of vectors) have no Blocks.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class QuantMatrix:
    """`data` is (rows, row_bytes) uint8, usually a view of a memory map; `type` is the ggml name of its encoding (Q4_1, F16, …)."""

    type: str
    shape: tuple[int, int]  # (rows, cols)
    data: np.ndarray

    @property
    def nbytes(self) -> int:
        return int(self.data.nbytes)

    def dequantize(self, rows: slice = slice(None)) -> np.ndarray:
        """float32 (rows, cols), by the gguf package's reference dequantisers."""
        import gguf

        kind = gguf.GGMLQuantizationType[self.type]
        return gguf.quants.dequantize(self.data[rows], kind).astype(np.float32, copy=False).reshape(-1, self.shape[1])

    @classmethod
    def from_float32(cls, values: np.ndarray, type: str = "F32") -> "QuantMatrix":
        """Encode float32 (rows, cols) as `type`, which the gguf package must be able to quantise."""
        import gguf

        data = gguf.quants.quantize(np.ascontiguousarray(values, np.float32), gguf.GGMLQuantizationType[type])
        return cls(type, (values.shape[0], values.shape[1]), np.ascontiguousarray(data).view(np.uint8).reshape(values.shape[0], -1))


@dataclass(frozen=True)
class Blocks:
    """weight[r, c] = quants[r, c] * scales[r, c // group] + minima[r, c // group]."""

    quants: np.ndarray  # (rows, cols) int8; never below zero where there are minima
    scales: np.ndarray  # (rows, cols // group) float32
    minima: np.ndarray | None  # like scales
    group: int  # 32, or 16 for Q2_K, Q3_K and Q6_K
    bits: int  # of a quant: 2, 3, 4, 5, 6 or 8


def _f16(raw: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(raw).view(np.float16).astype(np.float32)


def _nibbles(raw: np.ndarray) -> np.ndarray:
    """Bytes (…, n) to integers (…, 2n): all low nibbles, then all high ones."""
    return np.concatenate([raw & 15, raw >> 4], axis=-1).astype(np.int8)


def _fifth_bits(raw: np.ndarray) -> np.ndarray:
    """Four bytes of bits to (…, 32) integers that are 0 or 16."""
    return (np.unpackbits(np.ascontiguousarray(raw), axis=-1, bitorder="little") << 4).astype(np.int8)


def _q4_0(b: np.ndarray) -> tuple[np.ndarray, np.ndarray, None]:
    return _nibbles(b[..., 2:]) - np.int8(8), _f16(b[..., :2]), None


def _q4_1(b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return _nibbles(b[..., 4:]), _f16(b[..., :2]), _f16(b[..., 2:4])


def _q5_0(b: np.ndarray) -> tuple[np.ndarray, np.ndarray, None]:
    return (_nibbles(b[..., 6:]) | _fifth_bits(b[..., 2:6])) - np.int8(16), _f16(b[..., :2]), None


def _q5_1(b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return _nibbles(b[..., 8:]) | _fifth_bits(b[..., 4:8]), _f16(b[..., :2]), _f16(b[..., 2:4])


def _q8_0(b: np.ndarray) -> tuple[np.ndarray, np.ndarray, None]:
    return np.ascontiguousarray(b[..., 2:]).view(np.int8), _f16(b[..., :2]), None


# the 16 values that a nibble of IQ4_NL or IQ4_XS stands for (kvalues_iq4nl of ggml-common.h): closer together around zero
IQ4_NL_VALUES = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.int8)


def _iq4_nl(b: np.ndarray) -> tuple[np.ndarray, np.ndarray, None]:
    return IQ4_NL_VALUES[_nibbles(b[..., 2:])], _f16(b[..., :2]), None


def _iq4_xs(b: np.ndarray) -> tuple[np.ndarray, np.ndarray, None]:
    quants = IQ4_NL_VALUES[_nibbles(b[..., 8:].reshape(*b.shape[:-1], 8, 16))].reshape(*b.shape[:-1], 256)
    return quants, _f16(b[..., 0:2]) * iq4_xs_scales(b), None


def iq4_xs_scales(b: np.ndarray) -> np.ndarray:
    """IQ4_XS super-blocks (…, 136) to their eight 6-bit scales (…, 8) int8, of -32 … 31."""
    low = b[..., 4:8, None] >> np.array([0, 4], np.uint8) & 15
    high = np.ascontiguousarray(b[..., 2:4]).view(np.uint16) >> np.arange(0, 16, 2, dtype=np.uint16) & 3
    return (low.reshape(*b.shape[:-1], 8) | high.astype(np.uint8) << 4).astype(np.int8) - np.int8(32)


def _pairs_of_bits(raw: np.ndarray) -> np.ndarray:
    """64 bytes to (…, 256) integers of two bits: those of a half's 32 bytes lie 32 columns apart."""
    shifts = np.array([0, 2, 4, 6], np.uint8)[:, None]
    return (raw.reshape(*raw.shape[:-1], 2, 1, 32) >> shifts & 3).astype(np.int8).reshape(*raw.shape[:-1], 256)


def _q2_k(b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    scales, minima = (b[..., 0:16] & 15).astype(np.float32), (b[..., 0:16] >> 4).astype(np.float32)
    return _pairs_of_bits(b[..., 16:80]), _f16(b[..., 80:82]) * scales, -_f16(b[..., 82:84]) * minima


def _q3_k(b: np.ndarray) -> tuple[np.ndarray, np.ndarray, None]:
    third = (b[..., None, 0:32] >> np.arange(8, dtype=np.uint8)[:, None] & 1).astype(np.int8).reshape(*b.shape[:-1], 256) << 2
    return (_pairs_of_bits(b[..., 32:96]) | third) - np.int8(4), _f16(b[..., 108:110]) * q3_k_scales(b), None


def q3_k_scales(b: np.ndarray) -> np.ndarray:
    """Q3_K super-blocks (…, 110) to their sixteen 6-bit scales (…, 16) int8, of -32 … 31."""
    low = np.concatenate([b[..., 96:104] & 15, b[..., 96:104] >> 4], axis=-1)
    high = b[..., None, 104:108] >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3
    return (low | high.reshape(*b.shape[:-1], 16) << 4).astype(np.int8) - np.int8(32)


def _k_scales(raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 12 bytes of a Q4_K or Q5_K super-block to its eight 6-bit scales and eight 6-bit minima."""
    low, mid, high = raw[..., 0:4], raw[..., 4:8], raw[..., 8:12]
    scales = np.concatenate([low & 63, (high & 15) | ((low >> 6) << 4)], axis=-1)
    minima = np.concatenate([mid & 63, (high >> 4) | ((mid >> 6) << 4)], axis=-1)
    return scales.astype(np.float32), minima.astype(np.float32)


def _q4_k(b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    scales, minima = _k_scales(b[..., 4:16])
    quants = _nibbles(b[..., 16:144].reshape(*b.shape[:-1], 4, 32)).reshape(*b.shape[:-1], 256)
    return quants, _f16(b[..., 0:2]) * scales, -_f16(b[..., 2:4]) * minima


def _q5_k(b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    scales, minima = _k_scales(b[..., 4:16])
    quants = _nibbles(b[..., 48:176].reshape(*b.shape[:-1], 4, 32)).reshape(*b.shape[:-1], 8, 32)
    # bit j of byte i is the fifth bit of element i of the j-th group of 32
    fifth = ((b[..., None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None]) & 1).astype(np.int8) << 4
    return (quants | fifth).reshape(*b.shape[:-1], 256), _f16(b[..., 0:2]) * scales, -_f16(b[..., 2:4]) * minima


def _q6_k(b: np.ndarray) -> tuple[np.ndarray, np.ndarray, None]:
    low = _nibbles(b[..., 0:128].reshape(*b.shape[:-1], 2, 64)).reshape(*b.shape[:-1], 2, 4, 32)
    shifts = np.array([0, 2, 4, 6], np.uint8)[:, None]
    high = ((b[..., 128:192].reshape(*b.shape[:-1], 2, 1, 32) >> shifts) & 3).astype(np.int8) << 4
    scales = np.ascontiguousarray(b[..., 192:208]).view(np.int8).astype(np.float32)
    return (low | high).reshape(*b.shape[:-1], 256) - np.int8(32), _f16(b[..., 208:210]) * scales, None


@dataclass(frozen=True)
class _Format:
    block_bytes: int
    block: int  # weights in one block
    group: int
    bits: int
    read: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray | None]]


FORMATS = {
    "Q4_0": _Format(18, 32, 32, 4, _q4_0),
    "Q4_1": _Format(20, 32, 32, 4, _q4_1),
    "Q5_0": _Format(22, 32, 32, 5, _q5_0),
    "Q5_1": _Format(24, 32, 32, 5, _q5_1),
    "Q8_0": _Format(34, 32, 32, 8, _q8_0),
    "IQ4_NL": _Format(18, 32, 32, 8, _iq4_nl),
    "IQ4_XS": _Format(136, 256, 32, 8, _iq4_xs),
    "Q2_K": _Format(84, 256, 16, 2, _q2_k),
    "Q3_K": _Format(110, 256, 16, 3, _q3_k),
    "Q4_K": _Format(144, 256, 32, 4, _q4_k),
    "Q5_K": _Format(176, 256, 32, 5, _q5_k),
    "Q6_K": _Format(210, 256, 16, 6, _q6_k),
}


def to_blocks(matrix: QuantMatrix, rows: slice = slice(None)) -> Blocks | None:
    """The matrix (or some of its rows) as Blocks; None for a type that is not built of integer groups."""
    if (form := FORMATS.get(matrix.type)) is None:
        return None
    cols = matrix.shape[1]
    raw = matrix.data[rows].reshape(-1, cols // form.block, form.block_bytes)
    quants, scales, minima = form.read(raw)
    n = raw.shape[0]
    return Blocks(
        quants.reshape(n, cols),
        scales.reshape(n, cols // form.group),
        None if minima is None else minima.reshape(n, cols // form.group),
        form.group,
        form.bits,
    )
