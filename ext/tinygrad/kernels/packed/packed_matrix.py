"""A weight matrix laid out for the CPU's and the GPU's kernels, and the packer, which runs on all cores.

The packer is C where there is a compiler (c/pack.c), NumPy elsewhere (formats.py).
"""

import ctypes
import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tinygrad import Tensor

from ext.tinygrad.buffers import upload
from ext.tinygrad.c_function import compiled
from ext.tinygrad.kernels.matrix import QuantMatrix
from ext.tinygrad.kernels.packed.formats import FORMATS, GROUP, NATIVE, Format, as_stored, format_of, pack_rows, unpack
from ext.tinygrad.kernels.packed.memory import allocate, as_tensor

SOURCE = Path(__file__).parent / "c" / "pack.c"
CHUNK_ROWS = 1024  # rows packed at a time and by one thread, so that NumPy's intermediate arrays stay small
CORES = min(os.cpu_count() or 1, 8)  # a thread's arrays are some 40 MB for the widest rows
C_TYPES = {"F16": "u16", "BF16": "u16", "F32": "u32"}  # floats are moved as integers
Native = Callable[[int, int, int, int, int], None]  # addresses of rows and of their groups, rows, columns, bytes from row to row


def zeros(nbytes: int) -> np.ndarray:
    return np.zeros(nbytes, np.uint8)


def pack(matrix: QuantMatrix, allocate: Callable[[int], np.ndarray] = zeros) -> tuple[Format, np.ndarray]:
    """Lay a matrix out: its format and uint8 (groups, bytes of a group). `allocate(nbytes)` gives zeroed memory."""
    rows, cols = matrix.shape
    form = format_of(matrix.type)
    if form.bits and cols % 32:
        form = FORMATS["f16"]  # a type that has to be re-quantised, with rows that are no multiple of a block
    out = allocate(form.nbytes(rows, cols)).reshape(-1, form.group_bytes(cols))
    native = packer(matrix.type) if matrix.data.flags.c_contiguous else None

    def put(start: int) -> None:
        part = slice(start, min(rows, start + CHUNK_ROWS))
        target = out[start // GROUP : -(-part.stop // GROUP)]
        if native is None:
            pack_rows(matrix, part, form, target)
        else:
            native(matrix.data[part].ctypes.data, target.ctypes.data, part.stop - start, cols, matrix.data.strides[0])

    starts = range(0, rows, CHUNK_ROWS)
    if len(starts) > 1:
        with ThreadPoolExecutor(CORES) as pool:
            list(pool.map(put, starts))
    else:
        put(0)
    return form, out


@functools.cache
def packer(type: str) -> Native | None:
    """The C function that packs rows of a ggml type; None where there is none."""
    if type not in NATIVE:
        return None
    form = format_of(type)
    if form.element:
        macros: dict[str, object] = {"SOURCE": C_TYPES[type], "ELEMENT": C_TYPES[form.element.upper()]}
    else:
        macros = {"BITS": form.bits, "SETS": form.scale_sets, "HAS_MIN": int(form.has_min), "SUPER": int(form.k_scales)}
        macros["NIBBLE_SCALES"] = int(form.nibble_scales)
    lines = [f"#define {name} {value}" for name, value in ({f"TYPE_{type}": 1} | macros).items()]
    arguments = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long, ctypes.c_long, ctypes.c_long
    return compiled("pack", "\n".join([*lines, SOURCE.read_text()]), ctypes.CFUNCTYPE(None, *arguments))


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
