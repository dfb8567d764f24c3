import os

import pytest


@pytest.fixture(autouse=True, scope="package")
def _needs_opencl() -> None:
    from ext.tinygrad.backend import describe_device
    from ext.tinygrad.toolchain import BackendError

    if os.environ.get("TEST_GPU"):
        return
    try:
        describe_device("CL")
    except BackendError as error:
        pytest.skip(str(error))
