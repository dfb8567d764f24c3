"""A checkpoint's matrix in another ggml type, a few million weights at a time, on all cores."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import gguf
import numpy as np

from app.models.llama.checkpoint.checkpoint import Checkpoint
from app.models.llama.checkpoint.cores import cores
from ext.tinygrad.kernels.matrix import QuantMatrix
from ext.tinygrad.kernels.quantize_k import quantize_q4_k
from ext.tinygrad.kernels.quantize_q8_0 import quantize_q8_0

T = gguf.GGMLQuantizationType
CHUNK = 1 << 22  # weights at a time: 16 MB as float32


def encoded(checkpoint: Checkpoint, name: str, kind: gguf.GGMLQuantizationType, pool: ThreadPoolExecutor) -> Iterator[np.ndarray]:
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
