"""What every test shares: tinygrad opened on the CPU, OpenCL where a driver is there, and tiny models."""

import os
import signal
import sys
from pathlib import Path

import hypothesis
import pytest

from ext.tinygrad import kernel_cache, opencl_loader, toolchain
from ext.tinygrad.toolchain import BackendError
from tests.reference.sweeps import mark_exhaustive

# where the environment forbids bytecode, every process that a test starts would compile all that it imports
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# tinygrad's pool of compiling processes: of two test processes each would have one of its own, started anew for every 16 kernels, a second
# each time; and it waits for ever for one that has died. tests/ext/tinygrad/test_kernel_cache.py has it in use
os.environ.setdefault("PARALLEL", "0")
if not {"DEV", "CPU", "GPU"} & os.environ.keys():
    os.environ["DEV"] = "CPU"  # the suite says which device a test runs on; nothing may depend on what else the machine has
if "PYTEST_XDIST_WORKER" in os.environ:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # workers ignore it, and so would every process that a test starts
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup has it ignored, and what is ignored stays so in what is started
# the same cases every time (bench.fuzz looks for others), and no verdict by the clock
slow = [hypothesis.HealthCheck.too_slow]
hypothesis.settings.register_profile("suite", derandomize=True, deadline=None, suppress_health_check=slow)
hypothesis.settings.load_profile("suite")
# PoCL's optimiser takes most of a case on OpenCL. What kernels compute is tested without it; make test-all, where this is empty, has it as
# people do. Their cache must not be given what is compiled so
if os.environ.setdefault("POCL_EXTRA_BUILD_FLAGS", "-cl-opt-disable"):
    os.environ.setdefault("CACHEDB", str(toolchain.kernel_cache().with_suffix(".unoptimised.db")))
toolchain.prepare_environment()
opencl_loader.prepare()
kernel_cache.install()  # before a test has tinygrad open one that no other thread may use

DEFAULT_MODEL = Path(__file__).parents[1] / "app/models/llama/weights/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.hookimpl(tryfirst=True)  # before pytest looks at -m
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    mark_exhaustive(items)


@pytest.fixture(params=["CPU", "CL"])
def device(request: pytest.FixtureRequest) -> str:
    """Each device that computes: the CPU, and OpenCL (PoCL where nothing better is installed)."""
    name: str = request.param
    if name == "CL":
        request.getfixturevalue("opencl")
    return name


@pytest.fixture(scope="session")
def opencl() -> None:
    """An OpenCL driver that compiles: PoCL's LLVM may be older than the processor."""
    from ext.tinygrad.backend import describe_device

    try:
        describe_device("CL")
    except BackendError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def default_model() -> Path:
    if not DEFAULT_MODEL.exists():
        pytest.skip("the default model is not pulled; `make test` pulls it")
    return DEFAULT_MODEL
