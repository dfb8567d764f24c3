"""NVRTC without a device: CUDA C to machine code, and what ptxas says of it."""

import ctypes
import functools
import importlib.util
from pathlib import Path
from typing import Any


@functools.cache
def _library() -> Any:
    """NVRTC of the wheel; None where it is not installed."""
    spec = importlib.util.find_spec("nvidia")
    folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
    for folder in folders:
        # the oldest first: it compiles for the oldest cards too
        for path in sorted(folder.glob("*/lib/libnvrtc.so.1[0-9]"), key=lambda path: path.name):
            # it opens this one by name, which finds what is loaded already
            for builtins in path.parent.glob("libnvrtc-builtins.so.1[0-9].*"):
                ctypes.CDLL(str(builtins), ctypes.RTLD_GLOBAL)
            return ctypes.CDLL(str(path))
    return None


def nvrtc_version() -> tuple[int, int] | None:
    if (library := _library()) is None:
        return None
    major, minor = ctypes.c_int(), ctypes.c_int()
    library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return major.value, minor.value


def compile_cuda(source: str, architecture: str) -> tuple[bytes, str]:
    """-> (machine code, the log with ptxas's report). RuntimeError with the log where it is refused."""
    library, program = _library(), ctypes.c_void_p()
    library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None)
    options = [f"--gpu-architecture={architecture}".encode(), b"-Xptxas=-v"]
    status = library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    log = _read(library.nvrtcGetProgramLogSize, library.nvrtcGetProgramLog, program).rstrip(b"\0").decode()
    if status:
        raise RuntimeError(log or f"NVRTC error {status}")
    code = _read(library.nvrtcGetCUBINSize, library.nvrtcGetCUBIN, program)
    library.nvrtcDestroyProgram(ctypes.byref(program))
    return code, log


def _read(size_of: Any, read: Any, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    size_of(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(max(1, size.value))
    read(program, buffer)
    return buffer.raw[: size.value]
