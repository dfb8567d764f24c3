"""NVRTC is found where packages put it, and makes machine code for every card that Townhall knows."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ext.tinygrad import nvrtc, shared_libraries, toolchain

ROOT = Path(__file__).resolve().parents[3]
ELF = Path("/proc/self/exe")
LINUX = pytest.mark.skipif(not ELF.exists(), reason="only Linux has these folders")
VARIABLES = ("NVRTC_PATH", "CUDA_HOME", "CUDA_PATH", "CUDA_ROOT", "CONDA_PREFIX", "LD_LIBRARY_PATH")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without NVRTC: wheels go into site/nvidia, toolkits into local/, the system's libraries into lib/."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(nvrtc, "_nvidia_folders", lambda: [tmp_path / "site/nvidia"])
    monkeypatch.setattr(nvrtc, "TOOLKITS", tmp_path / "local")
    monkeypatch.setattr(nvrtc, "DRIVER_VERSION", tmp_path / "version")
    monkeypatch.setattr(shared_libraries, "SYSTEM_FOLDERS", (str(tmp_path / "lib"),))
    monkeypatch.setattr(shared_libraries, "LOADER_CACHE", tmp_path / "ld.so.cache")
    return tmp_path


def library(path: Path) -> Path:
    """The first bytes of an ELF file for this processor."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(ELF.read_bytes()[:64])
    return path


def driver(machine: Path, release: str) -> None:
    line = f"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {release}  Release Build  (dvs-builder)"
    (machine / "version").write_text(f"{line}\nGCC version:  gcc version 13.2.0\n")


@LINUX
def test_wheels_come_before_toolkits_and_these_before_the_system(machine, monkeypatch):
    assert nvrtc.find() is None
    system = library(machine / "lib/libnvrtc.so.12")
    assert nvrtc.find() == system
    old, new = (library(machine / f"local/cuda-{number}/lib64/libnvrtc.so.12") for number in ("12.4", "12.10"))
    assert nvrtc.find() == new
    chosen = library(machine / "mine/lib64/libnvrtc.so")
    monkeypatch.setenv("CUDA_HOME", str(machine / "mine"))
    assert nvrtc.find() == chosen
    thirteen = library(machine / "site/nvidia/cu13/lib/libnvrtc.so.13")
    assert nvrtc.find() == thirteen
    twelve = library(machine / "site/nvidia/cuda_nvrtc/lib/libnvrtc.so.12")
    assert nvrtc.find() == twelve
    nvrtc.prepare()
    assert os.environ["NVRTC_PATH"] == str(twelve)
    monkeypatch.setenv("NVRTC_PATH", str(old))
    nvrtc.prepare()
    assert os.environ["NVRTC_PATH"] == str(old)


@LINUX
@pytest.mark.parametrize(
    "release, major, chosen",
    [("580.95.05", 13, "12"), ("550.54.15", 12, "12"), ("470.256.02", 11, "11"), ("390.157", None, "13"), (None, None, "13")],
)
def test_a_library_is_chosen_whose_code_the_driver_runs(machine, release, major, chosen):
    found = {number: library(machine / f"lib/libnvrtc.so.{number}") for number in ("11", "13")}
    if chosen == "12":
        found["12"] = library(machine / "site/nvidia/cuda_nvrtc/lib/libnvrtc.so.12")
    if release:
        driver(machine, release)
    assert nvrtc.driver_major() == major
    assert nvrtc.find() == found[chosen]


@LINUX
def test_a_library_for_another_processor_is_none(machine):
    path = library(machine / "site/nvidia/cuda_nvrtc/lib/libnvrtc.so.12")
    head = bytearray(path.read_bytes())
    head[18:20] = bytes(2)
    path.write_bytes(head)
    assert nvrtc.find() is None


def test_the_headers_come_from_the_same_package_or_from_the_runtimes_wheel(machine):
    wheel = machine / "site/nvidia/cuda_nvrtc/lib/libnvrtc.so.12"
    toolkit = machine / "local/cuda/targets/x86_64-linux/lib/libnvrtc.so.12"
    for folder in ("site/nvidia/cuda_runtime", "local/cuda"):
        (machine / folder / "include").mkdir(parents=True)
        (machine / folder / "include/cuda_fp16.h").touch()
    wheels, toolkits = machine / "site/nvidia/cuda_runtime/include", machine / "local/cuda/include"
    assert nvrtc.include_folders(wheel)[0] == wheels
    assert nvrtc.include_folders(toolkit)[:2] == [toolkits, wheels]


def test_nvrtc_is_looked_for_only_where_a_card_may_be(monkeypatch):
    code = "import os; from ext.tinygrad.toolchain import *; prepare_environment(); print(os.environ.get('NVRTC_PATH', '') != '')"
    known = {name: value for name, value in os.environ.items() if name not in (*VARIABLES, "CPU", "GPU", "DEV")}

    def info(dev: str) -> str:
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=known | {"DEV": dev}, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert info("CPU") == "False"
    assert info("CUDA") == str(nvrtc.find() is not None)


def test_the_command_that_installs_it_is_for_the_python_that_runs(monkeypatch):
    monkeypatch.setattr(sys, "prefix", "/somewhere/venv")
    monkeypatch.setattr(sys, "executable", os.path.abspath("somewhere/bin/python"))
    monkeypatch.setenv("VIRTUAL_ENV", "")
    info = {True: "'townhall[cuda]'", False: nvrtc.REQUIREMENT}

    class Metadata:
        extras: list[str] | None = None

        def get_all(self, name: str) -> list[str] | None:
            assert name == "Provides-Extra"
            return self.extras

    monkeypatch.setattr("importlib.metadata.metadata", lambda name: Metadata())
    assert nvrtc.install_command() == f"somewhere/bin/python -m pip install {info[False]}"
    monkeypatch.setattr(Metadata, "extras", ["bench", "cuda"])
    monkeypatch.setenv("VIRTUAL_ENV", "/somewhere/venv")
    assert nvrtc.install_command() == f"pip install {info[True]}"


def test_the_extra_installs_what_the_sentences_name():
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["cuda"]
    assert [requirement.split(";")[0] for requirement in extra] == [nvrtc.REQUIREMENT, nvrtc.HEADERS]


def test_a_driver_library_that_cuda_path_names_is_a_driver(monkeypatch, tmp_path):
    monkeypatch.setattr(toolchain, "NVIDIA_DRIVER", tmp_path / "nvidiactl")
    monkeypatch.setattr(toolchain, "WSL_CUDA", tmp_path / "libcuda.so.1")
    monkeypatch.setenv("CUDA_PATH", str(tmp_path))  # a toolkit's folder
    assert "CUDA" in toolchain.missing_drivers()
    monkeypatch.setenv("CUDA_PATH", __file__)
    assert "CUDA" not in toolchain.missing_drivers()


# the real library, in a process of its own: tinygrad looks for it once

COMPILE = """
import json, sys
from ext.tinygrad.toolchain import prepare_environment
prepare_environment()
from ext.tinygrad import cuda
version = cuda._nvrtc_version()
from ext.tinygrad.cuda import CubinCompiler, KernelRefused
from tinygrad.helpers import Target
cuda.install()
from tinygrad.renderer.cstyle import CUDARenderer
SOURCE = '''#include <cuda_fp16.h>
extern "C" __global__ void twice(half* out, const half* in) { out[threadIdx.x] = __hadd(in[threadIdx.x], in[threadIdx.x]); }'''
kinds = {}
for arch in sys.argv[1:]:
    compiler = CUDARenderer(Target(device="CUDA", arch=arch)).compiler
    assert type(compiler) is CubinCompiler, compiler
    code = compiler.compile(SOURCE)
    kinds[arch] = "machine code" if code[:4] == b"\\x7fELF" and code[18:20] == b"\\xbe\\x00" else code[:40].decode()
try:
    compiler.compile("__device__ int f() { return nothing; }")
except KernelRefused as error:
    kinds["refused"] = str(error)
print(json.dumps([version, kinds]))
"""


@pytest.mark.cuda_compile
@pytest.mark.skipif(nvrtc.find() is None, reason="NVRTC is not installed (the extra `cuda`)")
def test_machine_code_for_every_generation_of_cards():
    known = {name: value for name, value in os.environ.items() if name not in (*VARIABLES, "CPU", "GPU", "DEBUG")}
    environment = known | {"DEV": "CUDA", "NVRTC_PATH": str(nvrtc.find())}
    generations = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_120")
    archs = generations if "13" in str(nvrtc.find()) else ("sm_70", *generations)
    done = subprocess.run([sys.executable, "-c", COMPILE, *archs, "sm_190"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    version, kinds = json.loads(done.stdout)
    assert version[0] in nvrtc.VERSIONS
    refused, newer = kinds.pop("refused"), kinds.pop("sm_190")
    assert kinds == dict.fromkeys(archs, "machine code")
    assert "NVIDIA NVVM" in newer or newer.startswith("//")  # PTX, for a card that NVRTC does not know yet
    assert refused.startswith("CUDA: NVRTC cannot compile a kernel for ") and 'identifier "nothing" is undefined' in refused
    assert "\n" not in refused


@pytest.mark.parametrize(
    "arch, supported, expected",
    [
        ("sm_90", [70, 80, 90], ("sm_90", False)),
        ("sm_89", [70, 80, 86, 90], ("sm_86", False)),
        ("sm_120", [70, 80, 90], ("compute_90", True)),
        ("sm_70", [75, 80], None),
        ("sm_52", [], ("sm_52", False)),
    ],
)
def test_what_nvrtc_is_asked_for_on_a_card(arch, supported, expected):
    from ext.tinygrad.cuda import compile_target

    assert compile_target(arch, supported) == expected
