"""Captured graphs of CUDA kernels as one CUDA graph each, and the one call that sets what changed and launches it.

A replay costs the host one cuGraphExecKernelNodeSetParams for each kernel whose arguments changed, and one cuGraphLaunch. Predicted, not
measured: 1 µs for each of the former (two of a layer's kernels take the position), 10 µs for the latter. A decode step's position is known
while the one before it is computed, so that ahead() takes the former off the way between two tokens.

The loop over the kernels is C where there is a clang to compile it (cuda_queue.c), and Python otherwise.
"""

import ctypes
import functools
import weakref
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tinygrad.runtime.autogen import cuda as cu
from tinygrad.runtime.ops_cuda import CUDADevice

from ext.tinygrad.cuda_errors import NO_MEMORY, check, out_of_memory
from ext.tinygrad.graph import native
from ext.tinygrad.graph.driver_runner import DriverGraphRunner, DriverLaunch
from ext.tinygrad.graph.profile import KernelTime, say

SOURCE = Path(__file__).with_name("cuda_queue.c")
WORD = (1 << 64) - 1
u64 = ctypes.c_uint64
Entry = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
SetCurrent, LaunchGraph = ctypes.CFUNCTYPE(ctypes.c_int, u64), ctypes.CFUNCTYPE(ctypes.c_int, u64, u64)
SetParams = ctypes.CFUNCTYPE(ctypes.c_int, u64, u64, u64)


class _Patch(ctypes.Structure):
    """`Patch` of cuda_queue.c."""

    _fields_ = [(name, u64) for name in ("word", "value", "addend")]


class _Node(ctypes.Structure):
    """`Node` of cuda_queue.c."""

    _fields_ = [(name, u64) for name in ("node", "params", "first", "count", "stale")]


class _Graph(ctypes.Structure):
    """`Graph` of cuda_queue.c."""

    _fields_ = [(name, u64) for name in (
        "context", "instance", "set_current", "set_params", "launch", "n_nodes", "nodes", "patches",
    )]  # fmt: skip


class CUDAQueue:
    """The launches as one instantiated CUDA graph, each kernel after the one before it.

    Making one or calling it raises OutOfDeviceMemory, or CUDARefusal for whatever else the driver refuses."""

    def __init__(self, device: CUDADevice, launches: Sequence[DriverLaunch], events: Sequence[Any] = ()):
        """`events`: to be recorded before the first kernel and after each."""
        self.device, self.launches = device, tuple(launches)
        self._words = array("Q", [word & WORD for launch in launches for word in launch.arguments] or [0])
        self._check(cu.cuCtxSetCurrent(device.context))
        graph, instance = cu.CUgraph(), cu.CUgraphExec()
        weakref.finalize(self, _release, device.context, graph, instance).atexit = False
        self._check(cu.cuGraphCreate(ctypes.byref(graph), 0))
        self._nodes, self._patches, self._params = self._add(graph, events)
        status = cu.cuGraphInstantiate_v2(ctypes.byref(instance), graph, None, None, 0)
        if status == NO_MEMORY and any(device.allocator.cache.values()):
            device.allocator.free_cache()  # buffers kept for later, in case that helps
            status = cu.cuGraphInstantiate_v2(ctypes.byref(instance), graph, None, None, 0)
        self._check(status)
        self._graph = _Graph(
            _number(device.context), _number(instance), _address("cuCtxSetCurrent"), _address("cuGraphExecKernelNodeSetParams"),
            _address("cuGraphLaunch"), len(self._nodes), ctypes.addressof(self._nodes), ctypes.addressof(self._patches),
        )  # fmt: skip
        self._run = entry() or run
        self._where = ctypes.addressof(self._graph)

    def __call__(self, values: int) -> None:
        if status := self._run(self._where, values, 1):
            self._check(status)

    def ahead(self, values: int) -> None:
        """Set the nodes only; a replay that is under way keeps what it was launched with."""
        if status := self._run(self._where, values, 0):
            self._check(status)

    def profile(self, values: int, replays: int) -> list[KernelTime]:
        """By the device's own clock, with an event between each two kernels: a graph of its own, for no host's pace to count.

        An event has a resolution of half a microsecond, and may cost as much."""
        self._check(cu.cuCtxSetCurrent(self.device.context))
        events, samples = [cu.CUevent() for _ in range(len(self.launches) + 1)], [list[int]() for _ in self.launches]
        try:
            for event in events:
                self._check(cu.cuEventCreate(ctypes.byref(event), 0))
            timed = CUDAQueue(self.device, self.launches, events)
            for _ in range(replays):
                timed(values)
                self.device.synchronize()
                for kernel, first, second in zip(samples, events, events[1:]):
                    kernel.append(self._elapsed(first, second))
        finally:
            for event in filter(None, events):
                cu.cuEventDestroy_v2(event)
        return [KernelTime.of(launch, launch.groups, ns) for launch, ns in zip(self.launches, samples)]

    def _add(self, graph: Any, events: Sequence[Any]) -> tuple[Any, Any, list[Any]]:
        """A chain of the launches in `graph`; -> the nodes that change and their patches, and what the driver reads of every launch."""
        last: list[Any] = []

        def chained(add: Any, what: Any) -> Any:
            node, after = cu.CUgraphNode(), (cu.CUgraphNode * len(last))(*last) if last else None
            self._check(add(ctypes.byref(node), graph, after, len(last), what))
            last[:] = [node]
            return node

        nodes: list[_Node] = []
        patches: list[_Patch] = []
        kept, start = [], self._words.buffer_info()[0]
        if events:
            chained(cu.cuGraphAddEventRecordNode, events[0])
        for i, launch in enumerate(self.launches):
            words = [start + 8 * argument for argument in range(len(launch.arguments))]
            pointers = (ctypes.c_void_p * max(1, len(words)))(*words)
            local = (*launch.local, *[1] * (3 - len(launch.local)))
            grid = [size // items for size, items in zip((*launch.size, *[1] * (3 - len(launch.size))), local)]
            params = cu.CUDA_KERNEL_NODE_PARAMS_v1(launch.program.prg, *grid, *local, launch.program.smem, pointers, None)
            node = chained(cu.cuGraphAddKernelNode, ctypes.byref(params))
            if launch.changes:
                nodes.append(_Node(_number(node), ctypes.addressof(params), len(patches), len(launch.changes), 0))
                patches += [_Patch(words[change.argument], change.value, change.addend & WORD) for change in launch.changes]
            if events:
                chained(cu.cuGraphAddEventRecordNode, events[i + 1])
            kept.append((params, pointers))
            start += 8 * len(words)
        return (_Node * len(nodes))(*nodes), (_Patch * len(patches))(*patches), kept

    def _elapsed(self, first: Any, second: Any) -> int:
        """Nanoseconds between two events that have been."""
        milliseconds = ctypes.c_float()
        self._check(cu.cuEventElapsedTime(ctypes.byref(milliseconds), first, second))
        return round(milliseconds.value * 1e6)

    def _check(self, status: int) -> None:
        if status == NO_MEMORY:
            raise out_of_memory(self.device)
        check(status)


def run(graph: int, values: int, start: int) -> int:
    """cuda_queue.c in Python."""
    g = _Graph.from_address(graph)
    status = SetCurrent(g.set_current)(g.context)
    set_params = SetParams(g.set_params)
    for node in _entries(_Node, g.nodes, g.n_nodes):
        if status:
            return int(status)
        for patch in _entries(_Patch, g.patches + node.first * ctypes.sizeof(_Patch), node.count):
            word, old = (u64.from_address(values + 8 * patch.value).value + patch.addend) & WORD, u64.from_address(patch.word)
            if old.value != word:
                old.value, node.stale = word, 1
        if node.stale and not (status := set_params(g.instance, node.node, node.params)):
            node.stale = 0
    return int(status or (LaunchGraph(g.launch)(g.instance, 0) if start else 0))


def _entries(kind: Any, where: int, n: int) -> Iterator[Any]:
    return iter((kind * n).from_address(where))


def _release(context: Any, graph: Any, instance: Any) -> None:
    """An instance that is under way is freed by the driver when it ends."""
    cu.cuCtxSetCurrent(context)
    if instance:
        cu.cuGraphExecDestroy(instance)
    if graph:
        cu.cuGraphDestroy(graph)


def _number(pointer: Any) -> int:
    return ctypes.cast(pointer, ctypes.c_void_p).value or 0


def _address(name: str) -> int:
    """Where the driver's function is."""
    address = ctypes.cast(getattr(cu.dll, name), ctypes.c_void_p).value
    assert address
    return address


@functools.cache
def entry():  # type: ignore[no-untyped-def]  # an instance of Entry, or None
    """cuda_queue.c, compiled; None, saying why at DEBUG=1, where that cannot be done. Calling it releases the GIL."""
    try:
        return Entry(native.load(SOURCE))
    except native.Unsupported as error:
        say(f"CUDA graphs are set from Python: {error}")
        return None


def address(buffer: Any) -> int:
    """Where a buffer is in the device's memory, allocated if need be."""
    place: int = buffer.get_buf(buffer.device).value
    return place


class CUDAGraphRunner(DriverGraphRunner):
    """One captured graph of kernels of one CUDA device."""

    place = staticmethod(address)
    queue = CUDAQueue
