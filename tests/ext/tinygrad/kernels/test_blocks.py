"""Quantised rows taken apart and put together again, against the gguf package's own dequantisers."""

import numpy as np
import pytest

from ext.tinygrad.kernels.matrix import FORMATS, QuantMatrix, to_blocks
from tests.reference.oracles import HALVES


def random_matrix(kind: str, rows: int = 9, cols: int = 512, seed: int = 0) -> QuantMatrix:
    """Any bytes are a valid block, as long as its float16 scales are numbers."""
    form, random = FORMATS[kind], np.random.default_rng(seed)
    blocks = random.integers(0, 256, (rows, cols // form.block, form.block_bytes), dtype=np.uint8)
    for at in HALVES.get(kind, (0,)):
        # as in real files no subnormal numbers: PoCL reads those as zero
        scales = random.uniform(0.01, 0.1, blocks.shape[:2]) * random.choice([-1, 1], blocks.shape[:2])
        blocks[..., at : at + 2] = scales.astype(np.float16)[..., None].view(np.uint8)
    return QuantMatrix(kind, (rows, cols), blocks.reshape(rows, -1))


@pytest.mark.parametrize("kind", FORMATS)
def test_blocks_hold_what_the_file_says_to_the_last_bit(kind: str) -> None:
    matrix = random_matrix(kind)
    blocks = to_blocks(matrix)
    assert blocks is not None
    values = blocks.quants.astype(np.float32) * np.repeat(blocks.scales, blocks.group, axis=1)
    if blocks.minima is not None:
        values += np.repeat(blocks.minima, blocks.group, axis=1)
    np.testing.assert_allclose(values, matrix.dequantize(), rtol=1e-6, atol=1e-7)
    low = 0 if blocks.minima is not None else -(1 << (blocks.bits - 1))
    assert blocks.quants.min() >= low and blocks.quants.max() < low + (1 << blocks.bits)


@pytest.mark.parametrize("kind", ["Q4_1", "Q6_K"])
def test_some_rows_are_the_same_rows(kind: str) -> None:
    matrix = random_matrix(kind)
    some, whole = to_blocks(matrix, slice(3, 7)), to_blocks(matrix)
    assert some is not None and whole is not None
    assert np.array_equal(some.quants, whole.quants[3:7]) and np.array_equal(some.scales, whole.scales[3:7])


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "IQ2_XS"])
def test_what_is_not_made_of_integer_groups_has_no_blocks(kind: str) -> None:
    assert to_blocks(QuantMatrix(kind, (1, 32), np.zeros((1, 128), np.uint8))) is None
