"""Small C functions beside the kernels: built by the compiler of tinygrad's CPU device, cached like its own, called through ctypes."""

import threading
from collections.abc import Callable
from typing import Any

from ext.tinygrad import kernel_cache

_lock = threading.Lock()  # tinygrad opens devices and caches for one thread at a time


def compiled(name: str, source: str, prototype: Any) -> Callable[..., Any] | None:
    """The first function of `source` under a ctypes prototype: PYFUNCTYPE for what is over at once, CFUNCTYPE for what others should not
    wait for. None where there is no C compiler, or one that refuses: the caller has NumPy.
    """
    from tinygrad.device import Device, TinyELF
    from tinygrad.runtime.ops_cpu import CPUProgram
    from tinygrad.runtime.support.compiler_cpu import ClangCompiler

    try:
        with _lock:
            kernel_cache.install()
            device = Device["CPU"]
            compiler = device.renderer.compiler
            if not isinstance(compiler, ClangCompiler):
                return None
            program = CPUProgram(device, TinyELF(compiler.compile_cached(source), name, device.renderer.target, ()))
    except Exception:  # no clang, one that refuses, no place for machine code: all the same here
        return None
    call: Callable[..., Any] = prototype(program.addr)
    call.memory = program  # type: ignore[attr-defined]  # the code lives as long as what calls it
    return call
