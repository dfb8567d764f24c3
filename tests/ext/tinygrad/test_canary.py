"""The canary reads the weights where they lie, all of what it says, and gives a speed that this machine can have."""

import ctypes

import numpy as np
import pytest
from tinygrad import Tensor

from ext.tinygrad import canary
from ext.tinygrad.buffers import upload


def test_any_device_tells_a_speed_that_can_be(device: str) -> None:
    tensors = [upload(np.ones(n << 20, np.uint8), device) for n in (1, 5, 2)]
    assert 1e6 < canary.bandwidth(tensors) < 1e13
    assert canary.bandwidth([]) == 0


def test_a_device_without_a_kernel_of_ours_is_timed_with_tinygrads() -> None:
    assert 1 < canary._on_tinygrad([Tensor.ones(1 << 16, device="CPU").contiguous().realize()]) < 1e13


@pytest.mark.parametrize("nbytes", [0, 128, 1024, 100 * 128])
def test_every_byte_of_the_stretch_is_read(nbytes: int) -> None:
    words = np.random.default_rng(nbytes).integers(0, 2**63, nbytes // 8, dtype=np.uint64)
    total = canary._cpu_function()(words.ctypes.data, nbytes)
    assert total == ctypes.c_uint64(int(words.astype(object).sum() if len(words) else 0)).value


def test_no_more_is_read_than_a_start_can_spare() -> None:
    tensors = [upload(np.zeros(n << 20, np.uint8), "CPU") for n in (5, 3, 2)]
    assert [size >> 20 for _, size in canary._first(tensors, 6 << 20)] == [5, 1]
