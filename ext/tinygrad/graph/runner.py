"""CPUGraphRunner: tinygrad's extension point for captured graphs, served by the native replay."""

import time
import weakref
from typing import Any

from tinygrad import UOp
from tinygrad.device import Buffer, Compiled
from tinygrad.engine.jit import GraphRunner
from tinygrad.engine.realize import get_call_arg_uops, resolve_params
from tinygrad.uop.ops import Ops

from ext.tinygrad.graph import native
from ext.tinygrad.graph.captured import NativeGraphRunner, kernel_name, param_slot
from ext.tinygrad.graph.plan import Change, Launch, Plan
from ext.tinygrad.graph.pool import current_pool, retire

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


class CPUGraphRunner(NativeGraphRunner):
    """One captured graph of CPU kernels."""

    place = staticmethod(address)
    why_not = staticmethod(why_not)

    def __init__(self, linear: UOp, input_uops: tuple[UOp, ...] = ()):
        super().__init__(linear, input_uops)
        self.plan = Plan(self._launches(input_uops))
        finalizer = weakref.finalize(self, retire, self.plan.address, self.plan.memory)
        finalizer.atexit = False

    @property
    def launches(self) -> list[Launch]:
        """Kernel by kernel, with the inputs of the capture in place."""
        return self.plan.launches

    def start(self, values: int) -> None:
        current_pool().replay(self.plan.address, values)

    def __call__(self, input_uops: tuple[UOp, ...], var_vals: dict[str, int], wait: bool = False) -> float | None:
        """Replay with other variables and inputs; returns the seconds it took if `wait`."""
        started = time.perf_counter() if wait else 0.0
        self.replay(input_uops, var_vals)
        return time.perf_counter() - started if wait else None

    def _launches(self, input_uops: tuple[UOp, ...]) -> list[Launch]:
        value_of: dict[int, int] = {}  # input slot -> index into values
        launches = []
        calls = zip(self.linear.src, self.calls, self.runtimes, strict=True)  # one device, so one of self.calls for each call
        for call, (_, ast, bufs, device_vars), runtime in calls:
            arguments, changes = [], []
            positions = ast.arg.globals if ast.op is Ops.PROGRAM else range(len(bufs))
            arg_uops, resolved = get_call_arg_uops(call), resolve_params(call, input_uops)
            for argument, position in enumerate(positions):
                arguments.append(address(bufs[position]))
                if (slot := param_slot(arg_uops[position])) is not None:
                    # a view of an input: what changes is where the input begins
                    offset = arguments[-1] - address(input_uops[slot].buffer)
                    changes.append(Change(argument, len(self.vars) + value_of.setdefault(slot, len(value_of)), offset))
            nbytes = sum({address(resolved[p].buffer): bufs[p].nbytes for p in positions}.values())
            if ast.op is Ops.COPY:
                arguments.append(bufs[0].nbytes)
                launches.append(Launch(native.function_address("memcpy"), arguments, changes, name="copy", nbytes=nbytes))
                continue
            for variable in ast.arg.vars:
                if variable.expr in self.vars:
                    changes.append(Change(len(arguments), self.vars.index(variable.expr)))
                arguments.append(device_vars.get(variable.expr, 0))
            core_slot, cores = runtime.runtimevars.get("core_id"), ast.arg.global_size[0]
            launches.append(Launch(runtime.addr, arguments, changes, core_slot, cores, kernel_name(ast), nbytes))
        self.take(value_of)
        return launches
