"""CPUGraphRunner: captured graphs of CPU kernels, replayed by the process's threads."""

import weakref
from array import array
from collections.abc import Sequence
from typing import Any

from tinygrad import UOp
from tinygrad.device import Buffer, Compiled
from tinygrad.engine.jit import GraphRunner
from tinygrad.engine.realize import get_call_arg_uops
from tinygrad.uop.ops import Ops

from ext.tinygrad.graph import native
from ext.tinygrad.graph.captured import ArgumentUpdate, NativeGraphRunner, kernel_name
from ext.tinygrad.graph.launch_plan import LaunchPlan, PooledLaunch
from ext.tinygrad.graph.pool import current_pool, retire
from ext.tinygrad.graph.profile import KernelTime
from ext.tinygrad.graph.task_ranges import declared

MOST_ARGUMENTS = 63  # tinygrad's own limit for a CPU program


def why_not(batch_devs: list[Compiled], call: UOp) -> str | None:
    """The reason why a call cannot be part of a native graph, None if it can."""
    ast = call.src[0]
    if ast.op not in (Ops.PROGRAM, Ops.COPY):
        return f"it is a {ast.op.name.lower()}, no kernel"
    devices = GraphRunner._all_devs(batch_devs, call)
    if len(devices) != 1 or devices[0].device.split(":")[0] != "CPU":
        return f"it is not on one CPU device: {', '.join(device.device for device in devices)}"
    if any(isinstance(uop.device, tuple) for uop in get_call_arg_uops(call)):
        return "its buffers are spread over devices"
    if ast.op is Ops.COPY:
        return None
    info = ast.arg
    if info.target.renderer == "LVP":
        return "the LVP renderer's kernels take their arguments in memory"
    if len(info.globals) + len(info.vars) > MOST_ARGUMENTS:
        return f"it takes more than {MOST_ARGUMENTS} arguments"
    if not all(isinstance(size, int) for size in info.global_size):
        return f"its launch size {info.global_size} changes from call to call"
    if info.global_size[0] < 1 or ("core_id" not in info.runtimevars and info.global_size[0] != 1):
        return f"its launch size {info.global_size} goes with no core_id"
    return None


def address(buffer: Any) -> int:
    """Where a CPU buffer's bytes are, allocated if need be."""
    assert isinstance(buffer, Buffer)
    return buffer.get_buf(buffer.device).va_addr


class PoolGraph:
    """A plan that the process's threads run; a call returns when everything is computed."""

    def __init__(self, launches: Sequence[PooledLaunch]):
        self.plan = LaunchPlan(list(launches))
        weakref.finalize(self, retire, self.plan.address, self.plan.memory).atexit = False

    def __call__(self, values: int) -> None:
        current_pool().replay(self.plan.address, values)

    def ahead(self, values: int) -> None:
        """Nothing: setting an argument is a store."""

    def profile(self, values: int, replays: int) -> list[KernelTime]:
        """The clock is read after each kernel (about 25 ns each)."""
        plan, times = self.plan, array("Q", [0]) * (len(self.plan.launches) + 1)
        samples: list[list[int]] = [[] for _ in plan.launches]
        for _ in range(replays):
            plan.native.times = times.buffer_info()[0]
            try:
                self(values)
            finally:
                plan.native.times = 0
            for kernel, (begin, end) in zip(samples, zip(times, times[1:])):
                kernel.append(end - begin)
        return [KernelTime.of(launch, launch.cores, ns) for launch, ns in zip(plan.launches, samples)]


class CPUGraphRunner(NativeGraphRunner):
    """One captured graph of CPU kernels."""

    place = staticmethod(address)
    assemble = staticmethod(PoolGraph)
    why_not = staticmethod(why_not)

    def launch(
        self, ast: UOp, bufs: list[Any], runtime: Any, arguments: list[int], changes: list[ArgumentUpdate], nbytes: int
    ) -> PooledLaunch:
        if ast.op is Ops.COPY:
            arguments = [*arguments, bufs[0].nbytes]
            return PooledLaunch(native.function_address("memcpy"), arguments, changes, name="copy", nbytes=nbytes)
        core_slot, cores = runtime.runtimevars.get("core_id"), ast.arg.global_size[0]
        source = next((one.arg for one in ast.src if one.op is Ops.SOURCE), "")
        return PooledLaunch(runtime.addr, arguments, changes, core_slot, cores, declared(source), kernel_name(ast), nbytes)
