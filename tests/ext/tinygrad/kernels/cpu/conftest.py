import pytest


@pytest.fixture(autouse=True, scope="package")
def _needs_the_kernels() -> None:
    from ext.tinygrad.kernels.cpu.cpu_kernels import CPUKernels

    if reason := CPUKernels.available():
        pytest.skip(reason)
