import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # oracles and programs are shared by the tests of this folder


@pytest.fixture(autouse=True, scope="package")
def _needs_the_kernels() -> None:
    from ext.tinygrad.kernels.cpu.cpu_kernels import CPUKernels

    if reason := CPUKernels.available():
        pytest.skip(reason)
