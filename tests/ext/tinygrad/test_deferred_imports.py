"""Imports that a start leaves out are there as soon as they are asked for; the garbage collector works on afterwards."""

import gc
import os
import subprocess
import sys

import pytest

from ext.tinygrad.deferred_imports import paused_collector

pytestmark = pytest.mark.slow

CODE = """
import sys
from app.models.llama import Llama
assert "tinygrad.renderer.nir" not in sys.modules and "tinygrad.renderer.isa.x86" not in sys.modules
from tinygrad import Device, Tensor
{then}
"""


def run(then: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "DEV": "CPU", **environment}
    return subprocess.run([sys.executable, "-c", CODE.format(then=then)], capture_output=True, text=True, env=variables)


def test_the_usual_start_imports_no_renderer_that_it_does_not_use() -> None:
    done = run("print((Tensor([1.0, 2.0]) + 1).tolist()); assert 'tinygrad.renderer.nir' not in sys.modules")
    assert done.stdout.strip() == "[2.0, 3.0]", done.stderr


def test_a_renderer_that_is_asked_for_is_imported_and_works() -> None:
    done = run("print((Tensor([1.0, 2.0]) + 1).tolist(), type(Device['CPU'].renderer).__module__)", DEV="CPU:X86")
    assert done.stdout.strip() == "[2.0, 3.0] tinygrad.renderer.isa.x86", done.stderr


def test_others_import_the_real_module() -> None:
    done = run("from tinygrad.renderer.nir import LVPRenderer; print(LVPRenderer.__mro__[1].__name__)")
    assert done.stdout.strip() == "NIRRenderer", done.stderr


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_afterwards_as_it_was(enabled: bool) -> None:
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        with pytest.raises(KeyError), paused_collector():
            assert not gc.isenabled()
            raise KeyError
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if before else gc.disable)()
