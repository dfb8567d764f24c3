"""What Townhall puts in the place of tinygrad's own, and what it uses that tinygrad does not call public: one table with reasons.

tinygrad is pinned, because any of these may change without notice. When it is upgraded, `tests/ext/tinygrad/test_tinygrad_patches.py` names
what is gone; each entry says where it is used and why.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TESTED = "0.14.0"  # the version that these names were read in


@dataclass(frozen=True)
class Internal:
    """A name of tinygrad's insides: "module:attribute.path", the files that use it, and the reason."""

    name: str
    files: tuple[str, ...]
    reason: str
    replaced: bool = False  # something of ours stands in its place


def _replaced(name: str, file: str, reason: str) -> Internal:
    return Internal(name, (file,), reason, replaced=True)


INTERNALS = (
    _replaced("tinygrad.runtime.ops_cl:CLProgram.__init__", "opencl_errors.py", "a kernel that the driver cannot build is one sentence"),
    _replaced("tinygrad.runtime.ops_cl:CLAllocator._alloc", "opencl_errors.py", "a device without room is one sentence"),
    _replaced("tinygrad.runtime.ops_cl:CLAllocator._copyin", "opencl_errors.py", "drivers allocate at the first copy: the same sentence"),
    _replaced("tinygrad.runtime.ops_cl:CLDevice.device_ids", "opencl.py", "GPUs come first, and drivers that no .icd file names are there"),
    _replaced("tinygrad.runtime.autogen.opencl:clBuildProgram", "opencl.py", "PoCL prints its warnings to stderr"),
    _replaced("tinygrad.runtime.ops_cuda:check", "cuda_errors.py", "an error of the driver is one sentence with its remedy"),
    _replaced("tinygrad.runtime.ops_cuda:CUDAProgram.__init__", "cuda_errors.py", "machine code that the driver refuses is one sentence"),
    _replaced("tinygrad.runtime.ops_cuda:CUDAAllocator._alloc", "cuda_errors.py", "a card without room is one sentence"),
    _replaced("tinygrad.runtime.ops_cuda:CUDAAllocator._copyin", "cuda_errors.py", "page-locked staging buffers would not be freed"),
    _replaced("tinygrad.renderer.cstyle:CUDARenderer.__init__", "cuda.py", "NVRTC makes machine code where tinygrad asks for PTX"),
    _replaced("tinygrad.runtime.ops_cuda:CUDADevice.__init__", "cuda.py", "no renderer but ours, unless DEV names one"),
    _replaced("tinygrad.engine.realize:get_worker_pool", "graph/compiling.py", "threads that wait for clang start faster than processes"),
    _replaced("tinygrad.device:ALLOW_DEVICE_USAGE", "thread_state.py", "off for all threads while one of them generates code"),
    _replaced("tinygrad.engine.realize:capturing", "thread_state.py", "a kernel that another thread runs is not part of a capture"),
    _replaced("tinygrad.engine.jit:capturing", "thread_state.py", "the same list, by the name that TinyJit has for it"),
    _replaced("tinygrad.schedule:capturing", "thread_state.py", "the same list, by the name that the scheduler has for it"),
    _replaced("tinygrad.helpers:_db_connection", "kernel_cache.py", "a full or read-only disk must not end a session"),
    _replaced("tinygrad.runtime.ops_cpu:do_to_program", "kernel_cache.py", "the queue's programs are generated once, not at each start"),
    _replaced("tinygrad.helpers:JIT_BATCH_SIZE", "graph/installation.py", "a pass is one graph, however long"),
    _replaced("tinygrad.helpers:NUM_CPU_THREADS", "graph/installation.py", "generated kernels are cut into tasks for our threads"),
    Internal("tinygrad.helpers:_db_tables", ("kernel_cache.py",), "tables of the connection that was given up"),
    Internal("tinygrad.renderer.nir:LVPRenderer", ("deferred_imports.py",), "imported when it is made: 0.02 s of each start"),
    Internal("tinygrad.renderer.isa.x86:X86Renderer", ("deferred_imports.py",), "imported when it is made: 0.02 s of each start"),
    Internal("tinygrad.engine.jit:GraphRunner._all_devs", ("graph/cpu_runner.py", "graph/driver_runner.py"), "which devices a call is on"),
    Internal("tinygrad.engine.jit:CapturedJit._written_uops", ("graph/captured.py",), "an input that is written cannot be exchanged"),
    Internal("tinygrad.dtype:_from_np_dtype", ("buffers.py", "graph/saved_graph.py"), "NumPy's types in tinygrad's"),
    Internal("tinygrad.dtype:_to_np_dtype", ("graph/saved_graph.py",), "tinygrad's types in NumPy's"),
    Internal("tinygrad.helpers:ContextVar._cache", ("graph/saved_graph.py",), "settings that a captured graph depends on"),
    Internal("tinygrad.uop.ops:UOp._shape", ("graph/opencl_queue.py",), "the shape of a parameter, if it has one"),
    Internal("tinygrad.tensor:all_tensors", ("garbage.py",), "weak references to tensors that went in a cycle stay in it"),
    Internal("tinygrad.device:LRUAllocator.alloc", ("garbage.py",), "leaves an empty list in its `cache` for each address"),
    Internal("tinygrad.device:Device._opened_devices", ("garbage.py",), "whose allocators are there; asked for by name, others would open"),
    Internal("tinygrad.codegen:to_program_key", ("kernel_cache.py",), "what a generated program depends on"),
)

_OURS = "townhall_replaces_this"


def replace(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Put make(what is there) in the place of owner.name; what is ours already stays."""
    there = getattr(owner, name)
    if not hasattr(there, _OURS):
        ours = make(there)
        setattr(ours, _OURS, True)
        setattr(owner, name, ours)


def installed_version() -> str | None:
    """Of tinygrad, from the name of its metadata folder; None where there is none (a checkout)."""
    module = sys.modules.get("tinygrad")
    if module is None or module.__file__ is None:
        return None
    found = next(Path(module.__file__).parents[1].glob("tinygrad-*.dist-info"), None)
    return found.name.removeprefix("tinygrad-").removesuffix(".dist-info") if found else None


def version_warning() -> str | None:
    """One sentence where another tinygrad is installed than the one that these patches were written for."""
    version = installed_version()
    if version in (None, TESTED):
        return None
    return (
        f"tinygrad {version} is installed and Townhall was written for {TESTED}, whose insides it relies on: "
        f"install it with `pip install tinygrad=={TESTED}`, or look through ext/tinygrad/tinygrad_patches.py"
    )
