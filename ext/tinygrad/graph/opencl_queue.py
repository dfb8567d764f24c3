"""Captured graphs of OpenCL kernels, whose arguments are set once, and the one call that enqueues them all.

The loop over the kernels is C where there is a clang to compile it (opencl_queue.c), and Python otherwise: some 2 µs a kernel more.
"""

import ctypes
import functools
import weakref
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tinygrad import UOp
from tinygrad.device import Compiled
from tinygrad.helpers import is_image_shape
from tinygrad.runtime.autogen import opencl as cl
from tinygrad.runtime.ops_cl import CLDevice, check, checked
from tinygrad.uop.ops import Ops

from ext.tinygrad.graph import driver_runner, native
from ext.tinygrad.graph.driver_runner import DriverGraphRunner, DriverLaunch
from ext.tinygrad.graph.profile import KernelTime, say
from ext.tinygrad.opencl_errors import refused

SOURCE = Path(__file__).with_name("opencl_queue.c")
Entry = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
SetArg = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_size_t, ctypes.c_void_p)
_pointer, _count = ctypes.c_void_p, ctypes.c_uint32
Enqueue = ctypes.CFUNCTYPE(ctypes.c_int, _pointer, _pointer, _count, _pointer, _pointer, _pointer, _count, _pointer, _pointer)
u64 = ctypes.c_uint64


class _Graph(ctypes.Structure):
    """`Graph` of opencl_queue.c."""

    _fields_ = [(name, u64) for name in ("queue", "set_arg", "enqueue", "n_launches", "n_patches", "launches", "patches")]


class OpenCLQueue:
    """The launches in their order, each a cl_kernel of its own, so that nothing has to be set again but what changes.

    A call raises OutOfDeviceMemory, or RuntimeError with the driver's word for whatever else it refuses."""

    def __init__(self, device: CLDevice, launches: Sequence[DriverLaunch]):
        self.device, self.launches = device, tuple(launches)
        self.kernels = [_kernel(launch) for launch in launches]
        handles = [ctypes.cast(kernel, ctypes.c_void_p).value or 0 for kernel in self.kernels]  # the driver's own words
        descriptors, patches = array("Q"), array("Q")
        for handle, launch in zip(handles, launches):
            descriptors.extend((handle, len(launch.size), *_three(launch.size), *_three(launch.local)))
            for change in launch.changes:
                assert change.addend == 0, "OpenCL's buffers have no views"
                patches.extend((handle, change.argument, launch.sizes[change.argument], change.value))
        self._memory = (descriptors, patches)
        self._graph = _Graph(
            ctypes.cast(device.queue, ctypes.c_void_p).value, _address("clSetKernelArg"), _address("clEnqueueNDRangeKernel"),
            len(launches), len(patches) // 4, descriptors.buffer_info()[0], patches.buffer_info()[0],
        )  # fmt: skip
        self._run = entry() or run
        self._where = ctypes.addressof(self._graph)
        weakref.finalize(self, _release, self.kernels).atexit = False

    def __call__(self, values: int) -> None:
        self._check(self._run(self._where, values))

    def ahead(self, values: int) -> None:
        """Nothing: what is set for a kernel that waits in the queue may be set again, at a tenth of a microsecond each."""

    def profile(self, values: int, replays: int) -> list[KernelTime]:
        """By the device's own clock, from each kernel's start to its end."""
        samples: list[list[int]] = [[] for _ in self.launches]
        for _ in range(replays):
            events = [cl.cl_event() for _ in self.launches]
            self._check(run(self._where, values, [ctypes.addressof(event) for event in events]))
            self.device.synchronize()
            for kernel, event in zip(samples, events):
                kernel.append(_elapsed(event))
        return [KernelTime.of(launch, launch.groups, ns) for launch, ns in zip(self.launches, samples)]

    def _check(self, status: int) -> None:
        if status:
            if no_room := refused(self.device, status):
                raise no_room
            check(status)


def run(graph: int, values: int, events: Sequence[int | None] = ()) -> int:
    """opencl_queue.c in Python; `events`: where to put an event for each kernel."""
    g = _Graph.from_address(graph)
    set_arg, enqueue = SetArg(g.set_arg), Enqueue(g.enqueue)
    for kernel, argument, size, value in _rows(g.patches, g.n_patches, 4):
        if status := set_arg(kernel, argument, size, values + 8 * value):
            return int(status)
    for i, (kernel, dims, *_) in enumerate(_rows(g.launches, g.n_launches, 8)):
        sizes, local = g.launches + 8 * (8 * i + 2), g.launches + 8 * (8 * i + 5)
        if status := enqueue(g.queue, kernel, dims, None, sizes, local, 0, None, events[i] if events else None):
            return int(status)
    return 0


def _rows(where: int, n: int, width: int) -> Iterator[Sequence[int]]:
    words = (u64 * (n * width)).from_address(where)
    return (words[i : i + width] for i in range(0, n * width, width))


def _three(sizes: Sequence[int]) -> tuple[int, ...]:
    return (*sizes, *[1] * (3 - len(sizes)))


def _kernel(launch: DriverLaunch) -> Any:
    kernel = checked(cl.clCreateKernel(launch.program.program, launch.name.encode(), status := ctypes.c_int32()), status)
    for i, (argument, size) in enumerate(zip(launch.arguments, launch.sizes, strict=True)):
        check(cl.clSetKernelArg(kernel, i, size, ctypes.byref(ctypes.c_int64(argument))))  # the low bytes come first
    return kernel


def _release(kernels: list[Any]) -> None:
    for kernel in kernels:
        cl.clReleaseKernel(kernel)


def _elapsed(event: Any) -> int:
    """Nanoseconds that a finished kernel took; the event is released."""
    begin, end = ctypes.c_uint64(), ctypes.c_uint64()
    for name, time in ((cl.CL_PROFILING_COMMAND_START, begin), (cl.CL_PROFILING_COMMAND_END, end)):
        check(cl.clGetEventProfilingInfo(event, name, 8, ctypes.byref(time), None))
    check(cl.clReleaseEvent(event))
    return end.value - begin.value


def _address(name: str) -> int:
    """Where the loader's function is."""
    address = ctypes.cast(getattr(cl.dll, name), ctypes.c_void_p).value
    assert address
    return address


@functools.cache
def entry():  # type: ignore[no-untyped-def]  # an instance of Entry, or None
    """opencl_queue.c, compiled; None, saying why at DEBUG=1, where that cannot be done. Calling it releases the GIL."""
    try:
        return Entry(native.load(SOURCE))
    except native.Unsupported as error:
        say(f"OpenCL kernels are enqueued from Python: {error}")
        return None


def why_not(batch_devs: list[Compiled], call: UOp) -> str | None:
    """The reason why a call cannot be part of a graph, None if it can."""
    if (reason := driver_runner.why_not(batch_devs, call)) is not None:
        return reason
    if any(is_image_shape(u.shape) for u in call.src[0].src[0].toposort() if u.op is Ops.PARAM and u._shape is not None):
        return "it reads an image"
    return None


def handle(buffer: Any) -> int:
    """The cl_mem of a buffer, allocated if need be."""
    opaque = buffer.get_buf(buffer.device)
    return ctypes.cast(opaque, ctypes.c_void_p).value or 0


class CLGraphRunner(DriverGraphRunner):
    """One captured graph of kernels of one OpenCL device."""

    place = staticmethod(handle)
    why_not = staticmethod(why_not)
    queue = OpenCLQueue
