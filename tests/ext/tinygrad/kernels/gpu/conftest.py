import os

import pytest


@pytest.fixture(autouse=True)
def _needs_opencl(request: pytest.FixtureRequest) -> None:
    if not os.environ.get("TEST_GPU") and not request.node.get_closest_marker("cuda_compile"):
        request.getfixturevalue("opencl")
