"""A packed weight on the CPU."""

from dataclasses import dataclass

import numpy as np
from tinygrad import Tensor

from ext.tinygrad.buffers import upload
from ext.tinygrad.kernels.matrix import QuantMatrix
from ext.tinygrad.kernels.packed.formats import Format, as_stored
from ext.tinygrad.kernels.packed.layout import unpack
from ext.tinygrad.kernels.packed.memory import allocate, as_tensor
from ext.tinygrad.kernels.packed.packing import pack, zeros


@dataclass(frozen=True)
class PackedMatrix:
    """A matrix in one of the layouts of formats.py, in a single buffer."""

    shape: tuple[int, int]  # (rows, cols)
    format: Format
    data: Tensor  # uint8, flat

    @classmethod
    def pack(cls, matrix: QuantMatrix, device: str) -> "PackedMatrix":
        form, packed = pack(matrix, allocate if device.split(":")[0] == "CPU" else zeros)
        return cls.from_packed(form, matrix.shape, packed.reshape(-1), device)

    @classmethod
    def in_place(cls, matrix: QuantMatrix, device: str) -> "PackedMatrix | None":
        """A weight over the matrix's own bytes, a memory map's as well as others; None where they must be laid out anew."""
        form = as_stored(matrix)
        return cls.from_packed(form, matrix.shape, matrix.data.reshape(-1), device) if form else None

    @classmethod
    def from_packed(cls, form: Format, shape: tuple[int, int], packed: np.ndarray, device: str) -> "PackedMatrix":
        """A weight of bytes laid out by this version of the formats; no copy on the CPU. They are read fastest from memory.allocate()."""
        assert packed.nbytes == form.nbytes(*shape), f"{packed.nbytes} bytes are no {shape} matrix in {form.name}"
        return cls(shape, form, as_tensor(packed, device) if device.split(":")[0] == "CPU" else upload(packed, device))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (self.data,)

    @property
    def layout(self) -> tuple:
        return (self.format, self.shape)

    @property
    def nbytes(self) -> int:
        return self.format.nbytes(*self.shape)

    def to_tensor(self) -> Tensor:
        packed = np.frombuffer(self.data.data(), np.uint8)
        return Tensor(unpack(self.format, packed, self.shape), device=self.data.device)
