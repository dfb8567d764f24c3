"""CLGraphRunner: captured graphs of OpenCL kernels, enqueued by one native call each; and several of them composed into one."""

import ctypes
import threading
import time
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tinygrad import UOp
from tinygrad.device import Compiled, Device
from tinygrad.engine.jit import GraphRunner
from tinygrad.engine.realize import get_call_arg_uops
from tinygrad.helpers import is_image_shape
from tinygrad.uop.ops import Ops

from ext.tinygrad.graph.captured import NativeGraphRunner, param_slot
from ext.tinygrad.graph.opencl_queue import Change, Launch, Queue

INT, HANDLE = 4, 8  # bytes of an argument


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
    if any(is_image_shape(u.shape) for u in ast.src[0].toposort() if u.op is Ops.PARAM and u._shape is not None):
        return "it reads an image"
    return None


def handle(buffer: Any) -> int:
    """The cl_mem of a buffer, allocated if need be."""
    opaque = buffer.get_buf(buffer.device)
    return ctypes.cast(opaque, ctypes.c_void_p).value or 0


class CLGraphRunner(NativeGraphRunner):
    """One captured graph of kernels of one OpenCL device; a replay returns as soon as everything is enqueued."""

    place = staticmethod(handle)
    why_not = staticmethod(why_not)

    def __init__(self, linear: UOp, input_uops: tuple[UOp, ...] = ()):
        super().__init__(linear, input_uops)
        self.opened: Any = Device[self.calls[0][2][0].device]
        self.queue = Queue(self.opened, self._launches())

    def start(self, values: int) -> None:
        self.queue(values)

    def __call__(self, input_uops: tuple[UOp, ...], var_vals: dict[str, int], wait: bool = False) -> float | None:
        """Enqueue with other variables and inputs; waits, and returns the seconds it took, if `wait`."""
        started = time.perf_counter()
        self.replay(input_uops, var_vals)
        if not wait:
            return None
        self.opened.synchronize()
        return time.perf_counter() - started

    def _launches(self) -> list[Launch]:
        value_of: dict[int, int] = {}  # input slot -> index into values, after the variables
        launches = []
        for call, (_, ast, bufs, device_vars), runtime in zip(self.linear.src, self.calls, self.runtimes, strict=True):
            arg_uops, info = get_call_arg_uops(call), ast.arg
            arguments: list[Any] = []
            changes: list[Change] = []
            for slot, _, shape in ((slot, dtype, shape) for _, slot, dtype, shape in runtime.signature):
                assert not is_image_shape(shape), "an image in a graph"  # why_not has seen to it
                if slot < len(info.globals):  # the driver's order of arguments is the signature's
                    position = info.globals[slot]
                    if (given := param_slot(arg_uops[position])) is not None:
                        index = len(self.vars) + value_of.setdefault(given, len(value_of))
                        changes.append(Change(len(arguments), index, HANDLE))
                    arguments.append(ctypes.c_void_p(handle(bufs[position])))
                else:
                    name = info.vars[slot - len(info.globals)].expr
                    if name in self.vars:
                        changes.append(Change(len(arguments), self.vars.index(name), INT))
                    arguments.append(ctypes.c_int32(device_vars.get(name, 0)))
            local = tuple(info.local_size) if info.local_size is not None else (1,) * len(info.global_size)
            size = tuple(int(g * n) for g, n in zip(info.global_size, local))
            nbytes = sum({handle(bufs[p]): bufs[p].nbytes for p in info.globals}.values())
            launches.append(Launch(runtime.program, info.function_name, size, local, arguments, changes, nbytes))
        self.take(value_of)
        return launches


class CLComposite:
    """The graphs one after another, enqueued by one native call; only variables are set anew, every buffer is settled."""

    def __init__(self, parts: Sequence[tuple[CLGraphRunner, Sequence[Any]]]):
        self._kept = tuple(parts)  # runners own the intermediate buffers, the rest are the bound ones
        self.variables = sorted({name for runner, _ in parts for name in runner.vars})
        self.lock = threading.Lock()
        launches = []
        for runner, inputs in parts:
            n = len(runner.vars)
            for launch in runner.queue.launches:
                arguments, changes = list(launch.arguments), []
                for change in launch.changes:
                    if change.value < n:
                        changes.append(replace(change, value=self.variables.index(runner.vars[change.value])))
                    else:
                        arguments[change.argument] = ctypes.c_void_p(handle(inputs[runner.slots[change.value - n]].buffer))
                launches.append(replace(launch, arguments=arguments, changes=changes))
        self.queue = Queue(parts[0][0].opened, launches)
        self._values = array("q", [0]) * max(1, len(self.variables))
        self._where = self._values.buffer_info()[0]

    def __call__(self, variables: Mapping[str, int]) -> None:
        """Enqueue with these values of the variables; returns at once. Raises KeyError for a missing variable."""
        with self.lock:
            for index, name in enumerate(self.variables):
                self._values[index] = variables[name]
            self.queue(self._where)
