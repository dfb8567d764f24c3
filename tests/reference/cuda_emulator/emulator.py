"""A software CUDA driver for tests: tinygrad's CUDA device, CUDA C kernels and CUDA graphs, run on the CPU.

`libcuda.so` and `libnvrtc.so` are built by clang from c/ (build.py). tinygrad finds them by CUDA_PATH and NVRTC_PATH, so that a process
with `environment()` opens them as the device CUDA; `install()` does the same for this process, before or after tinygrad is imported.

Every CUDA thread is a fiber with its own stack. What CUDA C leaves undefined ends a launch with an error where that is told at all: a
barrier that only a part of a block reaches, a warp operation without one of its lanes, an address outside every allocation. Memory is
full of 0xff until it is written (NaN as floats), and CUDA_EMULATOR_ORDER changes the order of threads, blocks and independent nodes of a
graph, so that results which depend on it differ. See c/settings.h for the other variables.

It is an oracle for results, not for speed; threads that wait for each other without a barrier or a warp operation wait for ever.
"""

import ctypes
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from tests.reference.cuda_emulator.build import build, obstacle

__all__ = ["CUDAEmulator", "build", "environment", "install", "obstacle"]


def environment(**settings: object) -> dict[str, str]:
    """Variables of a process whose CUDA device is the emulated one, say environment(memory=1 << 20) for CUDA_EMULATOR_MEMORY.

    Compiled kernels go to a database of their own: a real card must never be given one."""
    libraries = build()
    return {
        "CUDA_PATH": str(libraries.cuda),
        "NVRTC_PATH": str(libraries.nvrtc),
        "CACHEDB": str(libraries.folder / "kernels.db"),
        "DEV": "CUDA",
        **_variables(settings),
    }


def _variables(settings: dict[str, object]) -> dict[str, str]:
    return {f"CUDA_EMULATOR_{name.upper()}": str(value) for name, value in settings.items()}


class CUDAEmulator:
    """The emulated driver of this process."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(str(build().cuda))
        self._library.cuda_emulator_report.restype = ctypes.c_char_p

    def report(self) -> str:
        """What the driver had to say of the last thing that went wrong; "" before."""
        return self._library.cuda_emulator_report().decode()

    def forget(self) -> None:
        """A kernel's error stays, as on a card, where only a new process gets rid of it: begin anew."""
        self._library.cuda_emulator_forget()

    @contextmanager
    def set(self, **settings: object) -> Iterator[None]:
        """Other settings for a while: set(order=1), set(memory=1 << 20)."""
        variables = _variables(settings)
        before = {name: os.environ.get(name) for name in variables}
        try:
            os.environ.update(variables)
            self._library.cuda_emulator_configure()
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value
            self._library.cuda_emulator_configure()


@functools.cache
def install() -> CUDAEmulator:
    """Have tinygrad's CUDA device, in this process, be the emulated one. It must not have been opened before."""
    libraries = build()
    paths = {"CUDA_PATH": str(libraries.cuda), "NVRTC_PATH": str(libraries.nvrtc)}
    with mock.patch.dict(os.environ, paths):  # for this process's libraries only: a child of it has its own device
        _load(str(libraries.folder))
    return CUDAEmulator()


def _load(folder: str) -> None:
    from tinygrad.helpers import getenv

    getenv.cache_clear()
    from tinygrad.runtime.autogen import cuda, nvrtc
    from tinygrad.runtime.support.compiler_cuda import NVRTCCompiler

    for library, name in ((cuda.dll, "cuda"), (nvrtc.dll, "nvrtc")):
        if name not in library._loaded_:
            type(library).__init__(library, name, name)  # it was imported when there was none to find
        assert library._name.startswith(folder), f"{library._name} is loaded, another driver"
    _keep_compiled_apart(NVRTCCompiler, os.path.basename(folder))


def _keep_compiled_apart(compiler: type, name: str) -> None:
    """tinygrad's database of compiled kernels must not hand the emulator's to a card, or to another build of the emulator."""
    make = compiler.__init__  # type: ignore[misc]

    @functools.wraps(make)
    def make_apart(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        make(self, *args, **kwargs)
        if self.cachekey is not None:
            self.cachekey += f"_{name}"

    compiler.__init__ = make_apart  # type: ignore[misc]
