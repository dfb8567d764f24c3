"""tinygrad's CUDA device made ready before it is opened: NVRTC as its compiler, machine code instead of PTX, errors in sentences.

Left alone, tinygrad asks NVRTC for PTX, which a driver older than NVRTC refuses, and falls to a PTX generator of its own where NVRTC is
missing. Machine code (CUBIN) runs on every driver of NVRTC's major version and newer ones.
"""

import ctypes
import functools
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinygrad.device import CompileError
from tinygrad.helpers import DEBUG, DEV
from tinygrad.renderer.cstyle import CUDARenderer
from tinygrad.runtime.autogen import cuda as cu
from tinygrad.runtime.autogen import nvrtc as rtc
from tinygrad.runtime.support.compiler_cuda import NVRTCCompiler

from ext.tinygrad import nvrtc
from ext.tinygrad.tinygrad_patches import replace
from ext.tinygrad.toolchain import BackendError, missing_drivers


def compile_target(arch: str, supported: Sequence[int]) -> tuple[str, bool] | None:
    """What NVRTC is asked for on a card: an architecture, and whether as PTX, which the driver then translates.

    Machine code of an older card of the same generation runs as well; for a newer generation than NVRTC knows there is PTX only.
    None where NVRTC knows newer cards only."""
    card = int(arch.removeprefix("sm_"))
    known = [number for number in supported if number <= card]
    if not supported or card in known:
        return arch, False
    if not known:
        return None
    newest = max(known)
    return (f"sm_{newest}", False) if newest // 10 == card // 10 else (f"compute_{newest}", True)


def supported_architectures() -> list[int]:
    """The compute capabilities times ten that NVRTC compiles for; none where it does not tell (before CUDA 11.2)."""
    count = ctypes.c_int32()
    try:
        if rtc.nvrtcGetNumSupportedArchs(ctypes.byref(count)) != 0:
            return []
        numbers = (ctypes.c_int32 * count.value)()
        return sorted(numbers) if rtc.nvrtcGetSupportedArchs(numbers) == 0 else []
    except AttributeError:
        return []


class KernelRefused(BackendError, CompileError):
    """NVRTC cannot compile a kernel."""


class CubinCompiler(NVRTCCompiler):
    """Compiles CUDA C for `arch` ("sm_90")."""

    def __init__(self, arch: str):
        target, ptx = compile_target(arch, supported_architectures()) or (arch, False)
        super().__init__(target, ptx=ptx, cache_key="townhall_ptx" if ptx else "townhall_cubin")
        library = Path(os.environ.get("NVRTC_PATH", ""))
        folders = nvrtc.include_folders(library) if library.is_file() else []
        self.compile_options[1:1] = [f"-I{folder}" for folder in folders]  # before the folders that tinygrad thinks of

    def compile(self, src: str) -> bytes:
        try:
            return bytes(super().compile(src))
        except CompileError as error:
            if DEBUG >= 2:
                print(f"{src}\n{error}", file=sys.stderr)
            raise KernelRefused(self._refusal(str(error))) from error

    def _refusal(self, log: str) -> str:
        lines = [line.strip() for line in log.splitlines() if line.strip()]
        fault = next((line for line in lines[1:] if "error" in line), lines[0] if lines else "no log")
        if "cuda_fp16.h" in fault:
            return (
                f"NVRTC finds no header cuda_fp16.h, which a CUDA toolkit or the wheel nvidia-cuda-runtime-cu12 has: install it with "
                f"`{nvrtc.install_command(nvrtc.HEADERS)}`, or run with CPU=1"
            )
        fault = fault if len(fault) <= 160 else fault[:159] + "…"
        return f"CUDA: NVRTC cannot compile a kernel for {self.arch} ({fault}); DEBUG=2 shows its log, CPU=1 does without the card"


NO_LIBRARY = (
    "no NVIDIA driver library (libcuda.so.1) was found: install your card's driver, start a container with the card "
    "(`docker run --gpus all`), or run with CPU=1"
)


def prepare_device(index: int = 0) -> None:
    """Check what the CUDA device needs, and put our compiler and our errors into tinygrad, which opens the device then.

    BackendError says what is missing."""
    from ext.tinygrad import cuda_errors

    try:
        status = cu.cuInit(0)
    except AttributeError as error:  # how tinygrad says that the library did not load
        raise BackendError(missing_drivers().get("CUDA", NO_LIBRARY)) from error
    if status:
        raise BackendError(cuda_errors.sentence(status))
    if index >= (count := device_count()):
        last = f"CUDA:{count - 1}" if count > 1 else "CUDA"
        raise BackendError(f"DEV=CUDA:{index} names no device: the last one is {last}; `townhall devices` lists them")
    nvrtc_version = _nvrtc_version()
    driver = driver_version()
    if nvrtc_version[0] > driver[0]:
        raise BackendError(
            f"the NVIDIA driver knows CUDA {_dotted(driver)}, and NVRTC {_dotted(nvrtc_version)} makes code for CUDA {nvrtc_version[0]} "
            f"drivers: {'update the driver' if nvrtc_version[0] <= 12 else f'install an older NVRTC with `{nvrtc.install_command()}`'}, "
            f"or run with CPU=1"
        )

    arch = architecture(index)
    if compile_target(arch, supported_architectures()) is None:
        raise BackendError(
            f"NVRTC {_dotted(nvrtc_version)} makes no code for this card ({arch}): install another one with "
            f"`{nvrtc.install_command()}`, or run with CPU=1"
        )
    install()
    cuda_errors.install()


def install() -> None:
    """Have every CUDA renderer compile with CubinCompiler, and CUDA devices use no other renderer unless DEV names one."""
    from tinygrad.runtime.ops_cuda import CUDADevice

    replace(CUDARenderer, "__init__", _with_cubin)
    replace(CUDADevice, "__init__", _with_one_renderer)


def device_count() -> int:
    count = ctypes.c_int32()
    return count.value if cu.cuDeviceGetCount(ctypes.byref(count)) == 0 else 0


def driver_version() -> tuple[int, int]:
    """The newest CUDA version that the driver knows: (12, 4)."""
    number = ctypes.c_int32()
    cu.cuDriverGetVersion(ctypes.byref(number))
    return number.value // 1000, number.value % 1000 // 10


def attribute(name: int, index: int = 0) -> int:
    """One of CU_DEVICE_ATTRIBUTE_… of a card, 0 where the driver does not tell."""
    number = ctypes.c_int32()
    return number.value if cu.cuDeviceGetAttribute(ctypes.byref(number), name, index) == 0 else 0


def architecture(index: int = 0) -> str:
    """ "sm_90" for compute capability 9.0."""
    major = attribute(cu.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, index)
    return f"sm_{major}{attribute(cu.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, index)}"


def _nvrtc_version() -> tuple[int, int]:
    """Of the library that tinygrad found. BackendError where there is none."""
    import os

    path = Path(os.environ.get("NVRTC_PATH", ""))
    if path.is_file() and (builtins := nvrtc.builtins_of(path)):
        _loaded(str(builtins))
    major, minor = ctypes.c_int32(), ctypes.c_int32()
    try:
        rtc.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    except AttributeError as error:
        fault = f"NVRTC_PATH={path} is none" if os.environ.get("NVRTC_PATH") else "none was found"
        raise BackendError(
            f"the card's kernels are compiled by NVRTC, NVIDIA's compiler library, and {fault}: install it with "
            f"`{nvrtc.install_command()}`, or run with CPU=1"
        ) from error
    return major.value, minor.value


@functools.cache
def _loaded(path: str) -> Any:
    """The library stays loaded, and NVRTC finds it by its name."""
    return ctypes.CDLL(path)


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _with_cubin(make: Any) -> Any:
    @functools.wraps(make)
    def made(self: Any, target: Any, use_nvcc: bool = False) -> None:
        make(self, target, use_nvcc)
        if target.device == "CUDA" and not use_nvcc and not target.interface.startswith("MOCK"):
            self.compiler = CubinCompiler(target.arch)

    return made


def _with_one_renderer(open_device: Any) -> Any:
    @functools.wraps(open_device)
    def opened(self: Any, device: str) -> None:
        open_device(self, device)
        if not DEV.target("CUDA").renderer:
            self.renderers = [CUDARenderer]

    return opened
