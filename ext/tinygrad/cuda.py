"""tinygrad's CUDA device made ready before it is opened: NVRTC or nothing compiles, machine code instead of PTX, errors in sentences.

Left alone, tinygrad asks NVRTC for PTX, which a driver older than NVRTC refuses, and falls to a PTX generator of its own where NVRTC is
missing. Machine code (CUBIN) runs on every driver of NVRTC's major version and newer ones.
"""

import ctypes
import functools
from pathlib import Path
from typing import Any

from tinygrad.helpers import DEV
from tinygrad.renderer.cstyle import CUDARenderer
from tinygrad.runtime.autogen import cuda as cu
from tinygrad.runtime.autogen import nvrtc as rtc

from ext.tinygrad import nvrtc
from ext.tinygrad.tinygrad_patches import replace
from ext.tinygrad.toolchain import BackendError, missing_drivers

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
    from ext.tinygrad.cubin import compile_target, supported_architectures

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
            from ext.tinygrad.cubin import CubinCompiler

            self.compiler = CubinCompiler(target.arch)

    return made


def _with_one_renderer(open_device: Any) -> Any:
    @functools.wraps(open_device)
    def opened(self: Any, device: str) -> None:
        open_device(self, device)
        if not DEV.target("CUDA").renderer:
            self.renderers = [CUDARenderer]

    return opened
