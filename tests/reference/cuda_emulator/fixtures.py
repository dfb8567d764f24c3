"""Fixtures to import where a test needs the emulated CUDA device: `from tests.reference.cuda_emulator.fixtures import cuda_emulator`."""

from collections.abc import Iterator

import pytest

from tests.reference.cuda_emulator.build import obstacle
from tests.reference.cuda_emulator.emulator import CUDAEmulator, install


@pytest.fixture
def cuda_emulator() -> Iterator[CUDAEmulator]:
    """tinygrad's device CUDA, emulated, in this process; a kernel's error ends with the test."""
    if reason := obstacle():
        pytest.skip(reason)
    emulator = install()
    emulator.forget()
    from tinygrad.helpers import Context

    # processes that compile would know nothing of install(), and wait for ever if they began before it
    with Context(PARALLEL=0):
        yield emulator
    emulator.forget()
