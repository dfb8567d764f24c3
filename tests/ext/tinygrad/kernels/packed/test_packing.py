"""The packers in C make what the ones in NumPy make, to the last bit, and touch nothing beside the rows and their groups."""

import numpy as np
import pytest

from ext.tinygrad.kernels.matrix import FORMATS as BLOCKS
from ext.tinygrad.kernels.matrix import QuantMatrix
from ext.tinygrad.kernels.packed import packed_matrix
from ext.tinygrad.kernels.packed.formats import GROUP, NATIVE, format_of
from tests.reference import guarded
from tests.reference.oracles import HALVES

FLOATS = {"F16": 2, "BF16": 2, "F32": 4}
SHAPES = [(1, 1), (15, 1), (16, 3), (17, 1), (37, 2), (2100, 1)]  # rows, blocks in a row
CASES = [(type, rows, n * BLOCKS[type].block) for type in sorted(NATIVE - FLOATS.keys()) for rows, n in SHAPES]
CASES += [(type, rows, cols) for type in FLOATS for rows, cols in [(1, 1), (16, 16), (17, 40), (33, 7), (2100, 32)]]


def random_rows(type: str, rows: int, cols: int, seed: int = 0) -> QuantMatrix:
    """Any bytes are a block, as long as its f16 numbers are ones: subnormal, negative and zero ones are among them."""
    random = np.random.default_rng(seed)
    if type in FLOATS:
        values = random.standard_normal((rows, cols)).astype(np.float32) * random.choice([0, 1e-7, 1e-5, 1, 1e4], (rows, cols))
        halves = values.clip(-65504, 65504).astype(np.float16)
        stored = {"F32": values, "F16": halves, "BF16": (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)}[type]
        return QuantMatrix(type, (rows, cols), np.ascontiguousarray(stored, {"F32": np.float32}.get(type)).view(np.uint8))
    form = BLOCKS[type]
    blocks = random.integers(0, 256, (rows, cols // form.block, form.block_bytes), dtype=np.uint8)
    for at in HALVES.get(type, (0,)):
        numbers = random.integers(0, 1 << 16, blocks.shape[:2], dtype=np.uint16)
        numbers[numbers >> 10 & 31 == 31] &= 0x83FF  # infinite and not-a-number become subnormal
        blocks[..., at : at + 2] = numbers[..., None].view(np.uint8)
    return QuantMatrix(type, (rows, cols), blocks.reshape(rows, -1))


def in_numpy(matrix: QuantMatrix, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    with monkeypatch.context() as patch:
        patch.setattr(packed_matrix, "packer", lambda type: None)
        return packed_matrix.pack(matrix)[1]


@pytest.mark.parametrize("type, rows, cols", CASES)
def test_c_packs_what_numpy_packs(type: str, rows: int, cols: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert packed_matrix.packer(type) is not None
    matrix = random_rows(type, rows, cols)
    form, packed = packed_matrix.pack(matrix)
    assert form is format_of(type) and packed.any()
    np.testing.assert_array_equal(packed, in_numpy(matrix, monkeypatch))


@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("type", sorted(NATIVE))
def test_no_byte_beside_the_rows_and_their_groups_is_touched(type: str, at_end: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = random_rows(type, 37, 40 if type in FLOATS else 3 * BLOCKS[type].block)
    source = guarded.Guarded(matrix.nbytes, at_end)
    source.view()[:] = matrix.data.reshape(-1)
    target = guarded.Guarded(format_of(type).nbytes(*matrix.shape), at_end)
    there = QuantMatrix(type, matrix.shape, source.view().reshape(37, -1))
    _, packed = packed_matrix.pack(there, lambda nbytes: target.view()[:nbytes])
    np.testing.assert_array_equal(packed, in_numpy(matrix, monkeypatch))


def test_rows_that_lie_apart_are_packed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = random_rows("Q4_0", 40, 64)
    apart = QuantMatrix("Q4_0", (20, 64), whole.data[::2])
    np.testing.assert_array_equal(
        packed_matrix.pack(apart)[1], in_numpy(QuantMatrix("Q4_0", (20, 64), whole.data[::2].copy()), monkeypatch)
    )


def test_some_rows_of_a_file_are_packed_where_they_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part begins in the middle of a map, at no alignment at all."""
    whole = random_rows("Q8_0", 2 * GROUP, 64)
    raw = np.zeros(whole.nbytes + 1, np.uint8)
    raw[1:] = whole.data.reshape(-1)
    part = QuantMatrix("Q8_0", (GROUP, 64), raw[1:].reshape(2 * GROUP, -1)[GROUP:])
    np.testing.assert_array_equal(packed_matrix.pack(part)[1], in_numpy(QuantMatrix("Q8_0", (GROUP, 64), whole.data[GROUP:]), monkeypatch))
