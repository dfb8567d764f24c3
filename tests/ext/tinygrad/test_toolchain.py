"""The switches, the compiler and the OpenCL loader: settled from the environment before tinygrad is imported."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from ext.tinygrad import opencl_loader, toolchain
from ext.tinygrad.toolchain import BackendError, Request

ROOT = Path(__file__).resolve().parents[3]
SETTLED = ("CPU", "GPU", "DEV", "CC", "OPENCL_PATH", "OCL_ICD_VENDORS", "PYOPENCL_HOME")


def in_fresh_python(code: str, **environment: str) -> str:
    """What `code` prints in a Python of its own that has none of our settings."""
    known = {name: value for name, value in os.environ.items() if name not in SETTLED}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=known | environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without switches, on a machine without accelerators."""
    for name in SETTLED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(toolchain, "likely_accelerators", lambda: ())
    return monkeypatch


@pytest.mark.parametrize(
    "environment, accelerators, expected",
    [
        ({}, (), Request("automatic", ("CPU",))),
        ({}, ("CUDA", "CL"), Request("automatic", ("CUDA", "CL", "CPU"))),
        ({"CPU": "1"}, ("CUDA",), Request("CPU=1", ("CPU",))),
        ({"GPU": "1"}, (), Request("GPU=1", ("CL",))),
        ({"GPU": "1"}, ("METAL", "CL"), Request("GPU=1", ("METAL", "CL"))),
        ({"GPU": "0", "CPU": ""}, (), Request("automatic", ("CPU",))),
        ({"DEV": "CUDA"}, ("CL",), Request("DEV=CUDA", ("CUDA",))),
        ({"DEV": "CL:1"}, (), Request("DEV=CL:1", ("CL",), 1)),
        ({"DEV": "CPU:LLVM"}, (), Request("DEV=CPU:LLVM", ("CPU:LLVM",))),
        ({"DEV": "KFD+AMD", "GPU": "1"}, (), Request("DEV=KFD+AMD", ("KFD+AMD",))),
        ({"DEV": "CPU", "CPU": "1"}, (), Request("DEV=CPU", ("CPU",))),
    ],
)
def test_switches_become_targets_best_first(bare, environment, accelerators, expected):
    bare.setattr(toolchain, "likely_accelerators", lambda: accelerators)
    for name, value in environment.items():
        bare.setenv(name, value)
    assert toolchain.read_request() == expected


@pytest.mark.parametrize(
    "environment, words",
    [
        ({"CPU": "1", "GPU": "1"}, "CPU=1 and GPU=1 contradict"),
        ({"CPU": "1", "DEV": "CL"}, "CPU=1 and DEV=CL contradict"),
        ({"GPU": "1", "DEV": "CPU:LLVM"}, "GPU=1 and DEV=CPU:LLVM contradict"),
        ({"CUDA": "1"}, "CUDA=1 is no switch"),
        ({"CL": "1"}, "set DEV=CL"),
        ({"GPU": "yes"}, "GPU=yes is no switch: write GPU=1"),
    ],
)
def test_contradictions_and_nonsense_are_one_sentence(bare, environment, words):
    for name, value in environment.items():
        bare.setenv(name, value)
    with pytest.raises(BackendError, match=words):
        toolchain.read_request()


@pytest.mark.parametrize("target, device", [("CPU", "CPU"), ("cl", "CL"), ("KFD+AMD:LLVM", "AMD"), ("NVK:0+NV", "NV"), ("CPU;CL", "CPU")])
def test_the_device_of_a_target(target, device):
    assert toolchain.device_of(target) == device


def test_preparing_translates_the_switches_and_imports_no_tinygrad():
    code = """
import os, sys
from ext.tinygrad import toolchain
first = toolchain.prepare_environment()
os.environ["GPU"] = "1"  # too late: the first call counts
assert toolchain.prepare_environment() is first
heavy = [name for name in ("tinygrad", "pyopencl", "numpy") if name in sys.modules]
print(os.environ["DEV"], os.environ.get("CPU"), heavy, os.path.exists(os.environ.get("CC", "")))
"""
    assert in_fresh_python(code, CPU="1", CC="/usr/bin/gcc") == "CPU None [] True"


def test_a_tinygrad_imported_earlier_without_a_device_is_told():
    code = """
import tinygrad
from ext.tinygrad.toolchain import prepare_environment
prepare_environment()
print(tinygrad.Device.DEFAULT)
"""
    assert in_fresh_python(code, CPU="1") == "CPU"


def test_compiled_kernels_are_kept_per_processor(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    here = toolchain.kernel_cache()
    assert here == toolchain.kernel_cache() and here.parent == Path("/cache/tinygrad")
    read, flags = Path.read_text, "flags\t\t: fpu avx2"
    monkeypatch.setattr(Path, "read_text", lambda self, **rest: flags if str(self) == "/proc/cpuinfo" else read(self, **rest))
    older = toolchain.kernel_cache()
    flags = "flags\t\t: fpu avx2 avx512f"
    assert older != toolchain.kernel_cache() and here not in (older, toolchain.kernel_cache())


def test_a_kernel_cache_of_the_users_own_stands():
    code = "import os; from ext.tinygrad.toolchain import *; prepare_environment(); print(os.environ['CACHEDB'])"
    assert in_fresh_python(code, CACHEDB="/mine/cache.db") == "/mine/cache.db"


# the compiler


def program(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without any compiler: nothing beside Python, an empty PATH. Returns a folder to install some into."""
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "bin" / "python"))
    monkeypatch.setattr(sysconfig, "get_path", lambda *_: str(tmp_path / "scripts"))
    return tmp_path


def test_a_clang_in_cc_is_used_and_any_other_compiler_passed_over(no_compiler, monkeypatch):
    beside = program(no_compiler / "venv/bin/clang")
    mine, gcc = program(no_compiler / "mine/clang-19"), program(no_compiler / "bin/gcc")
    for cc, expected in [(mine, mine), (gcc, beside), ("ccache clang", beside), (str(no_compiler / "gone/clang"), beside), ("", beside)]:
        monkeypatch.setenv("CC", cc)
        assert toolchain.find_compiler() == expected


def test_the_pinned_clang_beside_python_comes_before_the_systems(no_compiler):
    system = program(no_compiler / "bin/clang")
    assert toolchain.find_compiler() == system
    scripts = program(no_compiler / "scripts/clang-23")  # a Python whose scripts are kept elsewhere
    assert toolchain.find_compiler() == scripts
    assert toolchain.find_compiler() != program(no_compiler / "venv/bin/clang-format")


def test_the_newest_of_the_systems_numbered_clangs(no_compiler):
    for name in ("clang-9", "clang-19", "clang-19.1", "clang-tidy-20"):
        program(no_compiler / "bin" / name)
    assert toolchain.find_compiler() == str(no_compiler / "bin/clang-19")
    (no_compiler / "bin/clang-99").write_text("not executable")
    assert toolchain.find_compiler() == str(no_compiler / "bin/clang-19")


def test_no_compiler_is_none(no_compiler):
    program(no_compiler / "bin/gcc")
    assert toolchain.find_compiler() is None


# the OpenCL loader


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with the bundle from the package index, and whatever a test puts into vendors/ and lib/."""
    for name in (*SETTLED, *opencl_loader.DRIVER_VARIABLES):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(name, "")
    (tmp_path / "vendors").mkdir()
    monkeypatch.setattr(opencl_loader, "REGISTERED", tmp_path / "vendors")
    monkeypatch.setattr(opencl_loader, "VENDOR_LIBRARIES", {})
    monkeypatch.setattr(opencl_loader, "SYSTEM_LOADERS", (tmp_path / "lib/libOpenCL.so.1",))
    bundle = tmp_path / "pyopencl" / ".libs"
    monkeypatch.setattr(opencl_loader, "bundled", lambda: (bundle / "libOpenCL-1.so.1", bundle / "libpocl-1.so"))
    return tmp_path


def info() -> tuple[str, str]:
    return tuple(Path(os.environ[name]).name for name in ("OPENCL_PATH", "OCL_ICD_VENDORS"))  # type: ignore[return-value]


def test_without_a_system_driver_the_bundled_loader_finds_the_bundled_driver(machine):
    program(machine / "lib/libOpenCL.so.1")
    opencl_loader.prepare()
    assert info() == ("libOpenCL-1.so.1", "libpocl-1.so") and os.environ["PYOPENCL_HOME"] == str(machine / "pyopencl")
    opencl_loader.prepare()  # as in a child process
    assert info() == ("libOpenCL-1.so.1", "libpocl-1.so")


def test_a_system_with_loader_and_driver_is_left_alone(machine):
    program(machine / "lib/libOpenCL.so.1")
    (machine / "vendors/nvidia.icd").write_text("libnvidia-opencl.so.1\n")
    opencl_loader.prepare()
    assert info() == ("", "")


def test_a_system_driver_without_a_loader_gets_the_bundled_loader(machine):
    (machine / "vendors/nvidia.icd").write_text("libnvidia-opencl.so.1\n")
    opencl_loader.prepare()
    assert info() == ("libOpenCL-1.so.1", "")


def test_a_registered_driver_that_is_gone_does_not_count(machine):
    program(machine / "lib/libOpenCL.so.1")
    (machine / "vendors/old.icd").write_text(f"{machine}/gone/libold.so\n")
    assert opencl_loader.system_drivers() == []
    opencl_loader.prepare()
    assert info() == ("libOpenCL-1.so.1", "libpocl-1.so")


def test_what_the_user_set_stands(machine, monkeypatch):
    monkeypatch.setenv("OPENCL_PATH", "/opt/mine/libOpenCL.so")
    opencl_loader.prepare()
    assert info() == ("libOpenCL.so", "")
