"""A list of OpenCL kernels whose arguments are set once, and the one call that enqueues them all.

The loop over them is C where there is a clang to compile it (opencl_queue.c), and Python otherwise: some 2 µs a kernel more.
"""

import ctypes
import functools
import weakref
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinygrad.device import Device, TinyELF
from tinygrad.runtime.autogen import opencl as cl
from tinygrad.runtime.ops_cl import CLDevice, check, checked
from tinygrad.runtime.ops_cpu import CPUProgram
from tinygrad.runtime.support.compiler_cpu import ClangCompiler

from ext.tinygrad.graph.native import BASELINES, keep_for_ever
from ext.tinygrad.graph.reasons import say
from ext.tinygrad.opencl_refusals import refused

SOURCE = Path(__file__).with_name("opencl_queue.c")
Entry = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
SetArg = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_size_t, ctypes.c_void_p)
_pointer, _count = ctypes.c_void_p, ctypes.c_uint32
Enqueue = ctypes.CFUNCTYPE(ctypes.c_int, _pointer, _pointer, _count, _pointer, _pointer, _pointer, _count, _pointer, _pointer)
u64 = ctypes.c_uint64


class _Graph(ctypes.Structure):
    """`Graph` of opencl_queue.c."""

    _fields_ = [(name, u64) for name in ("queue", "set_arg", "enqueue", "n_launches", "n_patches", "launches", "patches")]


@dataclass(frozen=True)
class Change:
    """An argument that each run sets: `size` bytes of values[value], a variable or a buffer's handle."""

    argument: int
    value: int
    size: int


@dataclass(frozen=True)
class Launch:
    """One kernel: `arguments` are buffer handles (c_void_p) or integers (c_int32), in the order of its parameters."""

    program: Any  # cl_program
    name: str
    size: tuple[int, ...]  # work-items
    local: tuple[int, ...]  # of a work-group
    arguments: Sequence[ctypes._SimpleCData]
    changes: Sequence[Change] = ()
    nbytes: int = 0  # of the buffers it is given; for people


class Queue:
    """The launches in their order, each a cl_kernel of its own, so that nothing has to be set again but what changes."""

    def __init__(self, device: CLDevice, launches: Sequence[Launch]):
        self.device, self.launches = device, tuple(launches)
        self.kernels = [_kernel(launch) for launch in launches]
        handles = [ctypes.cast(kernel, ctypes.c_void_p).value or 0 for kernel in self.kernels]  # the driver's own words
        descriptors, patches = array("Q"), array("Q")
        for handle, launch in zip(handles, launches):
            descriptors.extend((handle, len(launch.size), *_three(launch.size), *_three(launch.local)))
            for change in launch.changes:
                patches.extend((handle, change.argument, change.size, change.value))
        self._memory = (descriptors, patches)
        self._graph = _Graph(
            ctypes.cast(device.queue, ctypes.c_void_p).value, _address("clSetKernelArg"), _address("clEnqueueNDRangeKernel"),
            len(launches), len(patches) // 4, descriptors.buffer_info()[0], patches.buffer_info()[0],
        )  # fmt: skip
        self._run = entry() or run
        self._where = ctypes.addressof(self._graph)
        weakref.finalize(self, _release, self.kernels).atexit = False

    def __call__(self, values: int) -> None:
        """Enqueue everything with the 64-bit values at this address; returns at once.

        Raises OutOfDeviceMemory, or RuntimeError with the driver's word for whatever else it refuses."""
        if status := self._run(self._where, values):
            if no_room := refused(self.device, status):
                raise no_room
            check(status)


def run(graph: int, values: int) -> int:
    """opencl_queue.c in Python."""
    g = _Graph.from_address(graph)
    set_arg, enqueue = SetArg(g.set_arg), Enqueue(g.enqueue)
    for kernel, argument, size, value in _rows(g.patches, g.n_patches, 4):
        if status := set_arg(kernel, argument, size, values + 8 * value):
            return int(status)
    for i, (kernel, dims, *_) in enumerate(_rows(g.launches, g.n_launches, 8)):
        sizes, local = g.launches + 8 * (8 * i + 2), g.launches + 8 * (8 * i + 5)
        if status := enqueue(g.queue, kernel, dims, None, sizes, local, 0, None, None):
            return int(status)
    return 0


def _rows(where: int, n: int, width: int) -> Iterator[Sequence[int]]:
    words = (u64 * (n * width)).from_address(where)
    return (words[i : i + width] for i in range(0, n * width, width))


def _three(sizes: Sequence[int]) -> tuple[int, ...]:
    return (*sizes, *[1] * (3 - len(sizes)))


def _kernel(launch: Launch) -> Any:
    kernel = checked(cl.clCreateKernel(launch.program, launch.name.encode(), status := ctypes.c_int32()), status)
    for i, argument in enumerate(launch.arguments):
        check(cl.clSetKernelArg(kernel, i, ctypes.sizeof(argument), ctypes.byref(argument)))
    return kernel


def _release(kernels: list[Any]) -> None:
    for kernel in kernels:
        cl.clReleaseKernel(kernel)


def _address(name: str) -> int:
    """Where the loader's function is."""
    address = ctypes.cast(getattr(cl.dll, name), ctypes.c_void_p).value
    assert address
    return address


@functools.cache
def entry():  # type: ignore[no-untyped-def]  # an instance of Entry, or None
    """opencl_queue.c, compiled; None, saying why at DEBUG=1, where that cannot be done. Calling it releases the GIL."""
    try:
        device = Device["CPU"]
        compiler = ClangCompiler(BASELINES[(device.arch or "").split(",")[0]], cachekey="townhall_opencl_queue")
        binary = compiler.compile_cached(SOURCE.read_text())
        program = CPUProgram(device, TinyELF(binary, "townhall_opencl_queue", device.renderer.target, ()))
    except Exception as error:  # no clang, another processor, a full disk: all the same here
        say(f"OpenCL kernels are enqueued from Python: {type(error).__name__}: {error}")
        return None
    keep_for_ever(program.mem)
    return Entry(program.addr)
