"""A packed weight on the CPU."""

from dataclasses import dataclass

import numpy as np
from tinygrad import Tensor

from ext.tinygrad.kernels.cpu.formats import FORMATS, Format, pack, unpack
from ext.tinygrad.kernels.matrix import QuantMatrix


@dataclass(frozen=True)
class CPUWeight:
    """A matrix in one of the layouts of formats.py, in a single buffer."""

    shape: tuple[int, int]  # (rows, cols)
    format: Format
    data: Tensor  # uint8, flat

    @classmethod
    def pack(cls, matrix: QuantMatrix, device: str) -> "CPUWeight":
        form, packed = pack(matrix)
        return cls(matrix.shape, form, Tensor(packed.reshape(-1), device=device).realize())

    @classmethod
    def from_packed(cls, name: str, shape: tuple[int, int], data: Tensor) -> "CPUWeight":
        """A weight whose bytes were laid out earlier, by this version of the formats."""
        form = FORMATS[name]
        assert data.nbytes() == form.nbytes(*shape), f"{data.nbytes()} bytes are no {shape} matrix in {name}"
        return cls(shape, form, data)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (self.data,)

    @property
    def nbytes(self) -> int:
        return self.format.nbytes(*self.shape)

    def to_tensor(self) -> Tensor:
        packed = np.frombuffer(self.data.data(), np.uint8)
        return Tensor(unpack(self.format, packed, self.shape), device=self.data.device)
