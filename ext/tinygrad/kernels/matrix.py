"""A matrix as its file stores it: quantised rows of bytes, not yet laid out for any device."""

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
