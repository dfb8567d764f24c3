"""The canary reads the weights where they lie, all of what it says, and gives a speed that this machine can have."""

import ctypes

import numpy as np
import pytest
from tinygrad import Tensor

from ext.tinygrad import bandwidth
from ext.tinygrad.buffers import upload


def test_any_device_tells_a_speed_that_can_be(device: str) -> None:
    tensors = [upload(np.ones(n << 20, np.uint8), device) for n in (1, 5, 2)]
    assert 1e6 < bandwidth.bandwidth(tensors) < 1e13
    assert bandwidth.bandwidth([]) == 0


def test_a_device_without_a_kernel_of_ours_is_timed_with_tinygrads() -> None:
    assert 1 < bandwidth._on_tinygrad([Tensor.ones(1 << 16, device="CPU").contiguous().realize()]) < 1e13


@pytest.mark.parametrize("nbytes", [0, 128, 1024, 100 * 128])
def test_every_byte_of_the_stretch_is_read(nbytes: int) -> None:
    words = np.random.default_rng(nbytes).integers(0, 2**63, nbytes // 8, dtype=np.uint64)
    total = bandwidth._cpu_function()(words.ctypes.data, nbytes)
    assert total == ctypes.c_uint64(int(words.astype(object).sum() if len(words) else 0)).value


@pytest.mark.parametrize("sizes", [(1 << 20,), (16, 48, 4096, 80_000), (1 << 12,) * 16], ids=["one", "odd", "many"])
def test_every_word_of_every_buffer_is_read_on_a_gpu(sizes: tuple[int, ...], device: str) -> None:
    if device == "CPU":
        pytest.skip("it has a kernel of its own")
    random = np.random.default_rng(len(sizes))
    arrays = [random.integers(0, 256, size, dtype=np.uint8) for size in sizes]
    reader = bandwidth._opencl_reader([upload(values, device) for values in arrays])
    reader.read()
    sums = np.frombuffer(reader.out.as_memoryview(), np.uint32)
    rounds = reader.nbytes // sum(sizes)
    assert reader.nbytes == rounds * sum(sizes) >= sum(sizes)
    expected = rounds * sum(int(values.view(np.uint32).sum(dtype=np.uint64)) for values in arrays)
    assert int(sums.sum(dtype=np.uint64)) % 2**32 == expected % 2**32


def test_buffers_are_read_several_to_a_launch_and_small_ones_again() -> None:
    tensors = [upload(np.zeros(n << 10, np.uint8), "CPU") for n in [64] * 20]
    first, second = bandwidth._launches(tensors, 1 << 24, 8)
    assert len(first.buffers) == len(second.buffers) == bandwidth.BUFFERS
    assert sum(second.words) * 16 == 4 << 16 and first.nbytes == first.rounds * (1 << 20)
    assert (first.rounds, second.rounds) == (4, 8)


def test_no_more_is_read_than_a_start_can_spare() -> None:
    tensors = [upload(np.zeros(n << 20, np.uint8), "CPU") for n in (5, 3, 2)]
    assert [size >> 20 for _, size in bandwidth._first(tensors, 6 << 20)] == [5, 1]
