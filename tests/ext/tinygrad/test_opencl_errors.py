"""What OpenCL lacks or refuses is one sentence and exit code 2: each case provoked with the real loader and driver."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ext.tinygrad import opencl_errors, opencl_loader
from tests.reference.tiny import make_tiny_gguf

ROOT = Path(__file__).resolve().parents[3]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(opencl_loader.bundled() is None, reason="pyopencl[pocl] has no wheel for this platform")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_gguf(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


def townhall(*arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    """A command in a process of its own, without the settings of this one; it never leaves a traceback."""
    ours = ("CPU", "GPU", "DEV", "CC", "DEBUG", "KERNELS", "OPENCL_PATH", "OCL_ICD_VENDORS", "PYOPENCL_HOME")
    known = {name: value for name, value in os.environ.items() if name not in ours}
    command = [sys.executable, "-m", "townhall", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=known | environment, capture_output=True, text=True, timeout=120)
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture(scope="module")
def no_drivers(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("no-drivers"))


@pytest.mark.parametrize(
    "environment, words",
    [
        ({"OPENCL_PATH": "/nonexistent/libOpenCL.so.1"}, "no OpenCL loader (libOpenCL.so.1) was found"),
        ({"OCL_ICD_VENDORS": "{no_drivers}"}, "the OpenCL loader found no platform"),
        ({"POCL_DEVICES": "none"}, "has no device to drive"),
    ],
)
def test_without_loader_platform_or_device_nothing_else_takes_their_place(environment, words, model, no_drivers):
    if any(path.exists() for path in opencl_loader.SYSTEM_LOADERS) or opencl_loader.system_drivers():
        pytest.skip("this machine has OpenCL of its own")
    environment = {name: value.format(no_drivers=no_drivers) for name, value in environment.items()}
    done = townhall("chat", "--model", model, "--prompt", "hi", "--count", 2, GPU="1", **environment)
    assert done.returncode == 2 and done.stdout == ""
    assert words in done.stderr and "CPU=1" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.usefixtures("opencl")
def test_gpu_1_where_opencl_is_a_cpu_says_so_and_claims_no_gpu(model):
    if opencl_loader.system_drivers():
        pytest.skip("this machine may have a GPU")
    done = townhall("chat", "--model", model, "--prompt", "the", "--count", 3, "--timing", "--max-context", 128, GPU="1")
    assert done.returncode == 0, done.stderr
    assert "an OpenCL driver on the CPU" in done.stderr
    assert "gpu" not in (done.stdout + done.stderr).lower()
    refused = townhall("chat", "--model", model, "--prompt", "the", "--max-context", 128, "--require", "gpu", GPU="1")
    assert refused.returncode == 2 and refused.stdout == ""
    assert refused.stderr.startswith("townhall: --require gpu: the weights would sit on a CPU by its driver's word")
    assert len(refused.stderr.splitlines()) == 1


REFUSED = """
import sys
from ext.tinygrad.backend import open_backend
open_backend()
import click
from tinygrad import Tensor, dtypes
from ext.tinygrad.kernels.gpu.gpu_source import launch
from townhall.cli import main
def broken():
    out = Tensor.empty(4, device="CL")
    launch("__kernel void broken(__global float* out) { out[0] = nothing; }", "broken", [1], 1, [out])[0].realize()
def greedy():
    Tensor.empty(1 << 50, dtype=dtypes.uint8, device="CL").uop.base.buffer.ensure_allocated()
main.cli.add_command(click.Command(sys.argv[1], callback=globals()[sys.argv[1]]))
main.COMMANDS.clear()
main.LazyGroup.get_command = click.Group.get_command
sys.exit(main.main([sys.argv[1]]))
"""


def refused(what: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    known = {name: value for name, value in os.environ.items() if name not in ("CPU", "GPU", "DEBUG")}
    command = [sys.executable, "-c", REFUSED, what]
    done = subprocess.run(command, cwd=ROOT, env=known | {"DEV": "CL"} | environment, capture_output=True, text=True, timeout=120)
    assert "Traceback" not in done.stderr and done.returncode == 2, done.stderr
    return done


@pytest.mark.usefixtures("opencl")
def test_a_kernel_that_cannot_be_built_is_one_sentence():
    info = refused("broken").stderr
    sentences = [line for line in info.splitlines() if line.startswith("townhall: ")]
    assert len(sentences) == 1 and "cannot build the kernel broken" in sentences[0] and "undeclared identifier" in sentences[0]
    assert "OpenCL Compile Error" not in info
    assert "OpenCL Compile Error" in refused("broken", DEBUG="2").stderr


def test_a_driver_older_than_the_processor_is_named(monkeypatch):
    def build(self: Any, device: Any, obj: Any) -> None:
        raise RuntimeError("OpenCL Compile Error\n\nerror: unknown target CPU 'generic'")

    monkeypatch.setattr(opencl_errors, "info_of", lambda device: SimpleNamespace(driver="PoCL 3.0"))
    with pytest.raises(opencl_errors.BuildError, match="PoCL 3.0 does not know this processor .* CPU=1"):
        opencl_errors._explain_build(build)(None, SimpleNamespace(device="CL"), SimpleNamespace(name="E_5"))


@pytest.mark.usefixtures("opencl")
def test_missing_memory_is_one_sentence_with_need_and_supply():
    info = refused("greedy").stderr
    assert len(info.splitlines()) == 1
    assert "refuses memory: another 1125899.9 GB are needed, and " in info and " are available" in info and "CPU=1" in info
