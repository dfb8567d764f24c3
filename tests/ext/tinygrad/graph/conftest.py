import os
import sys
from collections.abc import Callable, Iterator

import pytest

from ext.tinygrad.toolchain import prepare_environment
from tests.reference.cuda_emulator.fixtures import cuda_emulator  # noqa: F401

if "tinygrad" not in sys.modules:  # these tests name their device; the default must only not be one that is missing here
    os.environ.setdefault("DEV", "CPU")
    prepare_environment()


@pytest.fixture
def install() -> Iterator[Callable[[int], None]]:
    """install(threads), taken back at the end of the test."""
    from ext.tinygrad.graph import installation

    def with_threads(threads: int) -> None:
        assert installation.install(threads)

    installation.uninstall()  # models of other tests leave it installed
    yield with_threads
    installation.uninstall()
