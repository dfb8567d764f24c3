"""Quantising in C gives the gguf package's bytes, and reads and writes none beside them."""

import gguf
import numpy as np
import pytest

from ext.tinygrad.kernels.matrix import QuantMatrix
from ext.tinygrad.kernels.quantize import TYPES, quantize_q8_0
from tests.reference.guarded import Guarded


def spread(rows: int, cols: int, type: str) -> QuantMatrix:
    """Blocks of every size of number, of zeros, and of numbers halfway between two integers."""
    random = np.random.default_rng(cols)
    values = random.standard_normal((rows, cols // 32, 32)) * 10.0 ** random.integers(-6, 4, (rows, cols // 32, 1))
    values[0, 0] = 0
    values[-1, -1] = [127, *(n + 0.5 for n in range(-15, 16))]
    return QuantMatrix.from_float32(values.reshape(rows, cols).astype(np.float32), type)


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("rows, cols", [(2, 32), (1, 64), (70, 576)])
def test_the_bytes_are_those_of_the_gguf_package(type: str, rows: int, cols: int) -> None:
    matrix = spread(rows, cols, type)
    expected = gguf.quants.quantize(matrix.dequantize(), gguf.GGMLQuantizationType.Q8_0)
    found = quantize_q8_0(matrix)
    assert found is not None
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("at_end", [True, False])
def test_nothing_beside_the_rows_is_read(type: str, at_end: bool) -> None:
    matrix = spread(3, 96, type)
    fenced = Guarded(matrix.nbytes, at_end)
    fenced.view()[:] = matrix.data.reshape(-1)
    there = QuantMatrix(type, matrix.shape, fenced.view().reshape(3, -1))
    np.testing.assert_array_equal(quantize_q8_0(there), quantize_q8_0(matrix))


def test_what_it_cannot_do_is_left_to_the_caller() -> None:
    assert quantize_q8_0(QuantMatrix.from_float32(np.ones((2, 33), np.float32))) is None
    assert quantize_q8_0(QuantMatrix.from_float32(np.ones((2, 32), np.float32), "Q4_0")) is None
