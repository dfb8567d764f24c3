"""Packing is a rearrangement: nothing of what the file says is lost."""

import numpy as np
import pytest

from ext.tinygrad.kernels.matrix import QuantMatrix
from ext.tinygrad.kernels.packed.formats import FORMATS, as_stored, format_of, unpack
from ext.tinygrad.kernels.packed.packed_matrix import pack
from tests.reference.oracles import random_matrix

EXACT = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "Q2_K", "Q3_K"]


@pytest.mark.parametrize("type", EXACT)
@pytest.mark.parametrize("rows", [1, 16, 37, 2100])
def test_a_packed_matrix_says_what_the_file_says(type: str, rows: int) -> None:
    matrix = random_matrix(np.random.default_rng(rows), type, rows, 256)
    form, packed = pack(matrix)
    assert packed.nbytes == form.nbytes(rows, 256)
    # bfloat16 becomes float16, whose smallest steps are 6e-8
    np.testing.assert_allclose(unpack(form, packed, matrix.shape), matrix.dequantize(), rtol=0, atol=3e-8 if type == "BF16" else 0)


@pytest.mark.parametrize("type", ["F32", "F16", "BF16"])
def test_floats_in_whole_groups_are_usable_as_they_are(type: str) -> None:
    matrix = random_matrix(np.random.default_rng(0), type, 48, 32)
    form = as_stored(matrix)
    assert form is not None and form.nbytes(48, 32) == matrix.nbytes
    np.testing.assert_array_equal(unpack(form, matrix.data, (48, 32)), matrix.dequantize())
    for rows, cols in ((47, 32), (48, 40)):
        assert as_stored(random_matrix(np.random.default_rng(0), type, rows, cols)) is None
    assert as_stored(random_matrix(np.random.default_rng(0), "Q8_0", 48, 32)) is None


def test_extreme_integers_survive() -> None:
    # -128 is no Q8_0 integer that gguf writes, but other writers may
    data = np.zeros((1, 34), np.uint8)
    data[0, :2] = np.array([0.5], np.float16).view(np.uint8)
    data[0, 2:] = np.array([-128, 127, 0, -1] * 8, np.int8).view(np.uint8)
    form, packed = pack(matrix := QuantMatrix("Q8_0", (1, 32), data))
    np.testing.assert_array_equal(unpack(form, packed, (1, 32)), matrix.dequantize())


def test_a_type_without_a_format_is_requantized_to_the_nearest() -> None:
    import gguf

    values = np.random.default_rng(0).standard_normal((40, 256)).astype(np.float32)
    data = gguf.quants.quantize(values, gguf.GGMLQuantizationType.TQ2_0)
    matrix = QuantMatrix("TQ2_0", (40, 256), data.view(np.uint8).reshape(40, -1))
    form, packed = pack(matrix)
    assert form is FORMATS["q8_0"] is format_of("TQ2_0")
    np.testing.assert_allclose(unpack(form, packed, matrix.shape), matrix.dequantize(), atol=np.abs(values).max() / 127 / 1.9)


def test_bits_per_weight_are_those_of_the_file() -> None:
    per_weight = {name: f.group_bytes(256) * 8 / 256 / 16 for name, f in FORMATS.items()}
    assert per_weight == {
        "q4_0": 4.5, "q4_1": 5.0, "q5_0": 5.5, "q5_1": 6.0, "q8_0": 8.5, "q4_k": 4.625, "q5_k": 5.625, "q6_k": 6.5625, "f16": 16, "f32": 32,
        "iq4_nl": 4.5, "iq4_xs": 4.3125, "q2_k": 2.625, "q3_k": 3.5625, "f16_rows": 16, "bf16_rows": 16, "f32_rows": 32,
    }  # fmt: skip
