"""Matrices of a checkpoint in another ggml type, a few million weights at a time, on all cores.

`Int8Checkpoint` is any checkpoint with its float matrices as 8-bit integers, quantised in memory as they are read.
"""

import hashlib
import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import gguf
import numpy as np

from app.models.llama.checkpoint.checkpoint import Checkpoint, DerivedCheckpoint, StoredMatrix
from app.models.llama.checkpoint.cores import cores
from app.models.llama.checkpoint.files import FLOATS
from ext.tinygrad.kernels.matrix import QuantMatrix
from ext.tinygrad.kernels.quantize import quantize_q4_k, quantize_q8_0

if TYPE_CHECKING:
    pass


T = gguf.GGMLQuantizationType
CHUNK = 1 << 22  # weights at a time: 16 MB as float32


class Rows(Protocol):
    """As much of a checkpoint as encoding takes."""

    def stored(self, name: str) -> StoredMatrix: ...
    def matrix(self, name: str, wanted: slice = slice(None)) -> QuantMatrix: ...


def encoded(checkpoint: Rows, name: str, kind: gguf.GGMLQuantizationType, pool: ThreadPoolExecutor) -> Iterator[np.ndarray]:
    """The matrix as uint8 (rows, row bytes) of `kind`, in order, some rows at a time, encoded ahead."""
    rows, cols = checkpoint.stored(name).shape
    step = max(1, CHUNK // cols)
    waiting: deque[Future[np.ndarray]] = deque()
    for start in range(0, rows, step):
        waiting.append(pool.submit(encode, checkpoint.matrix(name, slice(start, start + step)), kind))
        if len(waiting) > cores():
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def encode(matrix: QuantMatrix, kind: gguf.GGMLQuantizationType) -> np.ndarray:
    """uint8 (rows, row bytes); a matrix of that type already comes back as it is."""
    if matrix.type == kind.name:
        return np.ascontiguousarray(matrix.data)
    if kind == T.Q8_0 and (data := quantize_q8_0(matrix)) is not None:
        return data
    values = matrix.dequantize()
    if kind == T.Q4_K:
        return quantize_q4_k(values)
    return np.ascontiguousarray(gguf.quants.quantize(values, kind)).view(np.uint8)


Q8_0 = gguf.GGMLQuantizationType.Q8_0
BLOCK, BLOCK_BYTES = gguf.GGML_QUANT_SIZES[Q8_0]


class Int8Checkpoint(DerivedCheckpoint):
    """A Checkpoint over another one. Norms, rows that fill no block and what is quantised already stay as they are."""

    def __init__(self, source: Checkpoint) -> None:
        super().__init__(source)
        self.format = f"{source.format}, quantised to 8 bits"
        self.quantised = frozenset(filter(self._is_float_matrix, source.tensor_names))

    def _is_float_matrix(self, name: str) -> bool:
        stored = self.source.stored(name)
        return stored.type in FLOATS and len(stored.shape) == 2 and stored.shape[1] % BLOCK == 0

    @cached_property
    def nbytes(self) -> int:
        return sum(self.stored(name).nbytes for name in self.tensor_names)

    def stored(self, name: str) -> StoredMatrix:
        stored = self.source.stored(name)
        return StoredMatrix(Q8_0.name, stored.shape, math.prod(stored.shape) // BLOCK * BLOCK_BYTES) if name in self.quantised else stored

    def matrix(self, name: str, wanted: slice = slice(None)) -> QuantMatrix:
        """Quantised whenever it is asked for: a copy in memory, a few million weights at a time, on all cores."""
        if name not in self.quantised:
            return self.source.matrix(name, wanted)
        rows, cols = self.source.stored(name).shape
        data, at = np.empty((rows, cols // BLOCK * BLOCK_BYTES), np.uint8), 0
        with ThreadPoolExecutor(cores()) as pool:
            for part in encoded(self.source, name, Q8_0, pool):
                data[at : at + len(part)] = part
                at += len(part)
        self.source.release(name)
        data = data[wanted]
        return QuantMatrix(Q8_0.name, (len(data), cols), data)

    def fingerprint(self) -> str:
        """Of other weights than the source's where anything was quantised."""
        own = self.source.fingerprint()
        return hashlib.sha256(f"8-bit {own}".encode()).hexdigest() if self.quantised else own
