"""Rows of 8-bit blocks in tensors against NumPy, and against the gguf package's Q8_0."""

import gguf
import numpy as np
from tinygrad import Tensor, dtypes

from ext.tinygrad.buffers import upload
from ext.tinygrad.kernels.quantised_rows import QUANTISED, dequantise, floats_of, head_dim_of, quantise, row_elements
from tests.reference import quantised_rows as oracle


def values() -> np.ndarray:
    """(3, 5, 96), blocks of very different sizes, and one of zeros."""
    rng = np.random.default_rng(0)
    sizes = rng.choice([1e-9, 1e-5, 1e-2, 1.0, 300.0], (3, 5, 3, 1))
    x = (rng.standard_normal((3, 5, 3, 32)) * sizes).reshape(3, 5, 96).astype(np.float32)
    x[0, 0, :32] = 0
    return x


def test_rows_are_those_of_numpy(device: str) -> None:
    x = values()
    rows = quantise(upload(x, device))
    assert rows.shape == (3, 5, row_elements(96, QUANTISED)) == (3, 5, 102) and head_dim_of(rows) == 96
    np.testing.assert_array_equal(rows.numpy(), oracle.quantise(x))
    np.testing.assert_array_equal(dequantise(rows).numpy(), oracle.dequantise(rows.numpy()))


def test_an_entry_differs_by_half_a_scale_at_most() -> None:
    x = values()
    rows = quantise(Tensor(x, device="CPU")).numpy()
    scales = oracle.scales_of(rows)
    tiny = (scales < 2.0**-14) * 4e-6  # a float16 below that has fewer digits
    error = np.abs(oracle.dequantise(rows) - x).reshape(3, 5, 3, 32).max(-1)
    assert (error <= scales / 2 + tiny).all() and error.max() > 0


def test_what_was_read_is_stored_again_as_it_was() -> None:
    rows = quantise(Tensor(values()[..., :64] + 1, device="CPU"))
    np.testing.assert_array_equal(quantise(dequantise(rows)).numpy(), rows.numpy())


def test_gguf_rounds_the_same_values_to_the_same_or_the_next_integer() -> None:
    x = np.random.default_rng(1).standard_normal((4, 64)).astype(np.float32)
    theirs = gguf.quants.dequantize(gguf.quants.quantize(x, gguf.GGMLQuantizationType.Q8_0), gguf.GGMLQuantizationType.Q8_0)
    rows = quantise(Tensor(x, device="CPU")).numpy()
    steps = np.abs(oracle.dequantise(rows) - theirs) / oracle.scales_of(rows).repeat(32, axis=-1)
    assert steps.max() < 1.01 and (steps < 0.01).mean() > 0.9


def test_a_cache_of_floats_stays_what_it_is() -> None:
    halves = Tensor(np.array([[1.5, -2.0]], np.float16), device="CPU")
    assert row_elements(80, dtypes.float16) == 80 and head_dim_of(halves) == 2
    np.testing.assert_array_equal(floats_of(halves).numpy(), [[1.5, -2.0]])
