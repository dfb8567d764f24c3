"""The largest of many numbers against a full sort."""

import mmap

import numpy as np
import pytest

from ext.tinygrad.top_k import MOST, TopK

pytestmark = pytest.mark.slow


def expected(values: np.ndarray, k: int) -> list[int]:
    order = np.argsort(-values, kind="stable")
    return [int(i) for i in order if not np.isnan(values[i])][:k]


@pytest.mark.parametrize("size", [1, 15, 16, 17, 63, 6_401, 49_152])
@pytest.mark.parametrize("k", [1, 5, 40, MOST])
@pytest.mark.parametrize("kind", ["spread", "ties", "rising", "hidden", "alike", "nan", "nothing"])
def test_the_largest_come_first_and_of_equal_ones_the_first(size: int, k: int, kind: str) -> None:
    random = np.random.default_rng(size * k)
    values = random.standard_normal(size).astype(np.float32)
    if kind == "ties":
        values = np.round(values)
    elif kind == "rising":
        values.sort()
    elif kind == "hidden":
        values[random.random(size) < 0.9] = -np.inf
    elif kind == "alike":
        values[:] = 1.5
    elif kind == "nan":
        values[random.random(size) < 0.5] = np.nan
    elif kind == "nothing":
        values[:] = np.nan
    found = TopK()(values, k)
    assert found is not None
    ids, scores = found
    assert ids == expected(values, k)
    assert scores == values[ids].tolist()


def test_nothing_beyond_the_end_is_read() -> None:
    """The numbers end where others begin that are larger than all of them."""
    page = mmap.PAGESIZE
    memory = mmap.mmap(-1, 2 * page)
    values = np.frombuffer(memory, np.float32)[: page // 4]
    values[:] = np.arange(len(values))
    memory[page:] = b"\x7f" * page
    for size in range(900, page // 4):
        found = TopK()(values[page // 4 - size :], 3)
        assert found == ([size - 1, size - 2, size - 3], [1023.0, 1022.0, 1021.0])


def test_what_c_cannot_read_is_left_to_the_caller() -> None:
    assert TopK()(np.zeros(20, np.float32)[::2], 3) is None
    assert TopK()(np.zeros(20), 3) is None
