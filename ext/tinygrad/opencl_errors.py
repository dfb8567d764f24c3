"""Errors of OpenCL drivers in one sentence: a kernel that it cannot build, memory that it does not have.

tinygrad's own wrappers raise what they like, with a driver's log of many lines or a bare number. `install` puts a sentence in its place;
DEBUG=2 shows the log.
"""

import functools
import sys
from typing import Any

from tinygrad.device import CompileError
from tinygrad.helpers import DEBUG, GlobalCounters
from tinygrad.runtime.autogen import opencl as cl
from tinygrad.runtime.ops_cl import CLAllocator, CLProgram

from ext.tinygrad.opencl import info_of
from ext.tinygrad.tinygrad_patches import replace
from ext.tinygrad.toolchain import BackendError

# some drivers say no when a buffer is made, others when it is first written or computed with
NO_MEMORY = (
    cl.CL_MEM_OBJECT_ALLOCATION_FAILURE,
    cl.CL_OUT_OF_RESOURCES,
    cl.CL_OUT_OF_HOST_MEMORY,
    cl.CL_INVALID_BUFFER_SIZE,
)


class BuildError(BackendError, CompileError):
    """The driver cannot build a kernel."""


class OutOfOpenCLMemory(BackendError):
    """The device has no room."""


def install() -> None:
    """Put sentences in the place of tinygrad's errors; calling it again changes nothing."""
    replace(CLProgram, "__init__", _explain_build)
    replace(CLAllocator, "_alloc", _explain_memory)
    replace(CLAllocator, "_copyin", _explain_memory)


def refused(device: Any, status: int, nbytes: int | None = None) -> OutOfOpenCLMemory | None:
    """The sentence for a status that means that the device (an opened one) has no room, for nbytes where that is known."""
    if status not in NO_MEMORY:
        return None
    info = info_of(device)
    used = GlobalCounters.mem_used_per_device[device.device]
    need = f"another {_size(nbytes)} are needed, and " if nbytes else ""
    return OutOfOpenCLMemory(
        f"{device.device} ({info.name}) refuses memory: {need}{_size(max(0, info.memory - used))} of its {_size(info.memory)} are "
        f"available ({_size(info.largest_buffer)} at most in one piece, {_size(used)} are in use); lower --max-context, take weights of "
        f"fewer bits, or run with CPU=1"
    )


def status_of(error: RuntimeError) -> int:
    """The number in tinygrad's "OpenCL Error -4: …", 0 for any other error."""
    words = str(error).split()
    return int(words[2].rstrip(":")) if words[:2] == ["OpenCL", "Error"] else 0


def _explain_build(build: Any) -> Any:
    @functools.wraps(build)
    def explained_build(self: Any, device: Any, obj: Any) -> None:
        try:
            build(self, device, obj)
        except (CompileError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and (no_room := refused(device, status_of(error))):
                raise no_room from error
            log = [line.strip() for line in str(error).splitlines() if line.strip()]
            if DEBUG >= 2:
                print(f"{device.device}: {obj.name}\n{error}", file=sys.stderr)
            first = next((line for line in log if "error" in line and "OpenCL Compile Error" not in line), log[-1] if log else "no log")
            if "unknown target CPU" in first:  # a PoCL whose LLVM is older than the processor
                raise BuildError(
                    f"{device.device}: {info_of(device).driver} does not know this processor and cannot compile for it; "
                    f"install a newer one, or run with CPU=1, which needs no OpenCL"
                ) from error
            raise BuildError(
                f"{device.device}: {info_of(device).driver} cannot build the kernel {obj.name} ({_short(first)}); "
                f"DEBUG=2 shows its log, KERNELS=0 does without our own kernels, CPU=1 without OpenCL"
            ) from error

    return explained_build


def _explain_memory(call: Any) -> Any:
    @functools.wraps(call)
    def told_call(self: Any, first: Any, second: Any) -> Any:
        try:
            return call(self, first, second)
        except RuntimeError as error:
            # _alloc(size, options) or _copyin(destination, bytes)
            nbytes = first if isinstance(first, int) else second.nbytes
            if (no_room := refused(self.dev, status_of(error), nbytes)) is None:
                raise
            if isinstance(first, int) and any(self.cache.values()):
                self.free_cache()  # buffers kept for later, in case that helps; tinygrad would do so for errors of its own
                return told_call(self, first, second)
            raise no_room from error

    return told_call


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e9:.1f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.0f} MB"


def _short(line: str) -> str:
    return line if len(line) <= 160 else line[:159] + "…"
