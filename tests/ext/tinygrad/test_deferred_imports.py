"""Imports that a start leaves out are there as soon as they are asked for; the garbage collector works on afterwards."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ext.tinygrad.deferred_imports import kept_imports, paused_collector
from tests.reference.tiny import make_tiny_gguf

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


@pytest.mark.parametrize("flags", [["--prompt", "One", "--count", "1"], ["--personality", "ada.yaml"]], ids=["completion", "chat"])
def test_a_command_imports_no_more_and_the_collector_walks_none_of_its_modules(flags: list[str], tmp_path: Path) -> None:
    make_tiny_gguf(tmp_path / "tiny.gguf", dim=128, context_length=512)
    (tmp_path / "ada.yaml").write_text("name: Ada\ndescription: Ada counts.\n")
    code = f"""
import gc, sys
from townhall.__main__ import main
sys.argv = ["townhall", "chat", "--model", "tiny.gguf", *{flags!r}]
assert main() == 0
never = {{"tinygrad.renderer.nir", "tinygrad.renderer.isa.x86", "importlib.metadata", "tqdm", "asyncio"}}
print(never & sys.modules.keys(), not any(o is sys.modules['tinygrad'].__dict__ for o in gc.get_objects()), gc.isenabled())
"""
    environment = {**os.environ, "DEV": "CPU", "XDG_CACHE_HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.stdout.endswith("set() True True\n"), done.stdout + done.stderr


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


def test_what_imports_made_is_frozen_and_nothing_else() -> None:
    before = gc.get_freeze_count()
    with kept_imports():
        pass
    assert gc.get_freeze_count() == before
    try:
        with kept_imports():
            sys.modules["a_module_of_this_test"] = sys
        assert gc.get_freeze_count() > before
    finally:
        del sys.modules["a_module_of_this_test"]
        gc.unfreeze()
