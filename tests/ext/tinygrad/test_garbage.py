"""What tinygrad keeps of tensors that are gone goes with them."""

import gc

import numpy as np
from tinygrad import Device
from tinygrad import tensor as tensors

from ext.tinygrad import buffers, garbage


def leave(count: int) -> None:
    """Tensors that nothing refers to but themselves."""
    for _ in range(count):
        one = buffers.upload(np.zeros(64, np.float32), "CPU")
        one.itself = one  # type: ignore[attr-defined]


def kept() -> tuple[int, int]:
    return len(tensors.all_tensors), len(Device["CPU"].allocator.cache)


def test_of_tensors_in_a_cycle_nothing_stays() -> None:
    leave(1)  # the device opens
    garbage.collect()
    before = kept()
    leave(20)
    assert kept() > before
    garbage.collect()
    assert kept() == before


def test_without_it_tinygrad_keeps_their_references() -> None:
    garbage.collect()
    before = kept()
    leave(20)
    gc.collect()
    assert kept()[0] == before[0] + 20, "tinygrad has mended this: ext/tinygrad/garbage.py may go"
    garbage.collect()
