"""Several captured graphs, each over its own buffers, as one native graph: one captured layer replayed over every layer's weights."""

import threading
import weakref
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tinygrad import Tensor
from tinygrad.engine.realize import get_graph_runtime

from ext.tinygrad.graph.fast import base, why_not
from ext.tinygrad.graph.plan import Change, Plan
from ext.tinygrad.graph.pool import current_pool, retire
from ext.tinygrad.graph.profile import KernelTime, profile
from ext.tinygrad.graph.reasons import say
from ext.tinygrad.graph.runner import CPUGraphRunner, address
from ext.tinygrad.graph.stored import StoredGraph

if TYPE_CHECKING:
    from ext.tinygrad.graph.opencl import CLComposite


class Composite:
    """The graphs one after another in one native call; only variables are set anew, every buffer is settled."""

    def __init__(self, parts: Sequence[tuple[CPUGraphRunner | StoredGraph, Sequence[Any]]]):
        self._kept = tuple(parts)  # runners own the intermediate buffers, the rest are the bound ones
        self.variables = sorted({name for runner, _ in parts for name in runner.vars})
        self.lock = threading.Lock()
        launches = []
        for runner, inputs in parts:
            n = len(runner.vars)
            for launch in runner.launches:
                arguments, changes = list(launch.arguments), []
                for change in launch.changes:
                    if change.value < n:
                        changes.append(Change(change.argument, self.variables.index(runner.vars[change.value])))
                    else:
                        arguments[change.argument] = address(inputs[runner.slots[change.value - n]].buffer) + change.addend
                launches.append(replace(launch, arguments=arguments, changes=changes))
        self.plan = Plan(launches)
        self._values = array("q", [0]) * max(1, len(self.variables))
        self._graph, self._where = self.plan.address, self._values.buffer_info()[0]
        finalizer = weakref.finalize(self, retire, self.plan.address, self.plan.memory)
        finalizer.atexit = False

    def __call__(self, variables: Mapping[str, int]) -> None:
        """Replay with these values of the variables; returns when everything is computed. Raises KeyError for a missing variable."""
        with self.lock:
            self._set(variables)
            current_pool().replay(self._graph, self._where)

    def profile(self, variables: Mapping[str, int], replays: int = 20) -> list[KernelTime]:
        """Time each kernel over some replays, in the order in which they run."""
        with self.lock:
            self._set(variables)
            return profile(current_pool(), self.plan, self._where, replays)

    def _set(self, variables: Mapping[str, int]) -> None:
        for index, name in enumerate(self.variables):
            self._values[index] = variables[name]


def compose(parts: Sequence[tuple[Any, Sequence[Tensor]]]) -> "Composite | CLComposite | None":
    """Captured TinyJits of one device, or kept graphs, each with the tensors that take its arguments' places, as one native graph.

    None, saying why at DEBUG=1, where one of them is no native graph. On OpenCL a call of it returns before the work is done.

    An output that a later part reads must be one of the inputs: a graph's own output buffer is the same in all of its replays."""
    on_opencl = parts[0][1][0].device.split(":")[0] == "CL"
    if on_opencl:  # tinygrad's bindings are imported only where there is a device
        from ext.tinygrad.graph.opencl import CLComposite, CLGraphRunner
    kind: tuple[type, ...] = (CLGraphRunner,) if on_opencl else (CPUGraphRunner,)
    runners: list[tuple[Any, Sequence[Any]]] = []
    for jit, inputs in parts:
        if isinstance(jit, StoredGraph):
            runners.append((jit, [base(one) for one in inputs]))
            continue
        if (obstacle := why_not(jit, inputs, kind)) is not None:
            say(f"graphs are replayed one by one: {obstacle}")
            return None
        bases = [base(one) for one in inputs]
        runners.append((get_graph_runtime(jit.captured.linear.src[0].src[0], tuple(bases)), bases))
    return CLComposite(runners) if on_opencl else Composite(runners)
