"""What graph runners of devices behind a driver's queue share: which calls a graph takes in, and a kernel as the queue takes it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tinygrad import UOp
from tinygrad.device import Compiled
from tinygrad.engine.jit import GraphRunner
from tinygrad.engine.realize import get_call_arg_uops
from tinygrad.uop.ops import Ops

from ext.tinygrad.graph.captured import ArgumentUpdate, NativeGraph, NativeGraphRunner


@dataclass(frozen=True)
class DriverLaunch:
    """One kernel with its arguments in the order of its parameters: 64-bit words (where a buffer is, or a number) of which `sizes` bytes
    count."""

    program: Any  # as tinygrad loaded it
    name: str
    size: tuple[int, ...]  # work-items, in one to three dimensions
    local: tuple[int, ...]  # of a work-group
    arguments: Sequence[int]
    sizes: Sequence[int]
    changes: Sequence[ArgumentUpdate] = ()
    nbytes: int = 0  # of the buffers it is given; for people

    @property
    def groups(self) -> int:
        return math.prod(self.size) // math.prod(self.local)


def why_not(batch_devs: list[Compiled], call: UOp) -> str | None:
    """The reason why a call cannot be part of a graph, None if it can."""
    ast = call.src[0]
    if ast.op is not Ops.PROGRAM:
        return f"it is a {ast.op.name.lower()}, no kernel"
    devices = GraphRunner._all_devs(batch_devs, call)
    if len(devices) != 1 or any(isinstance(uop.device, tuple) for uop in get_call_arg_uops(call)):
        return f"its buffers are spread over {', '.join(device.device for device in devices)}"
    info = ast.arg
    if not all(isinstance(size, (int, float)) for size in (*info.global_size, *(info.local_size or ()))):
        return f"its launch size {info.global_size} changes from call to call"
    return None


class DriverGraphRunner(NativeGraphRunner):
    """One captured graph of kernels of one device; a replay returns as soon as everything is enqueued."""

    why_not = staticmethod(why_not)
    queue: type  # (opened device, launches) -> a NativeGraph

    def assemble(self, launches: Sequence[DriverLaunch]) -> NativeGraph:
        queue: NativeGraph = self.queue(self.opened, launches)
        return queue

    def launch(
        self, ast: UOp, bufs: list[Any], runtime: Any, arguments: list[int], changes: list[ArgumentUpdate], nbytes: int
    ) -> DriverLaunch:
        info = ast.arg
        # a signature tells (name, slot, dtype, shape) of every parameter; slots are in the order of `arguments`
        slots = [slot for _, slot, _, _ in runtime.signature]
        sizes = [8 if slot < len(info.globals) else dtype.itemsize for _, slot, dtype, _ in runtime.signature]
        changes = [ArgumentUpdate(slots.index(change.argument), change.value, change.addend) for change in changes]
        local = tuple(info.local_size) if info.local_size is not None else (1,) * len(info.global_size)
        size = tuple(int(groups * items) for groups, items in zip(info.global_size, local))
        return DriverLaunch(runtime, info.function_name, size, local, [arguments[slot] for slot in slots], sizes, changes, nbytes)
