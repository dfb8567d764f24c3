"""Several captured graphs, each over its own buffers, as one native graph: one captured layer replayed over every layer's weights."""

import threading
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tinygrad import Tensor
from tinygrad.engine.realize import get_graph_runtime

from ext.tinygrad.graph.captured import Captured, base, why_not
from ext.tinygrad.graph.profile import KernelTime, say
from ext.tinygrad.graph.saved_graph import StoredGraph


class Composite:
    """The graphs one after another in one native call; only variables are set anew, every buffer is settled."""

    def __init__(self, parts: Sequence[tuple[Captured, Sequence[Any]]]):
        """Captured graphs of one device, and the buffers (UOps) that take the place of each one's inputs."""
        self._kept = tuple(parts)  # runners own the intermediate buffers, the rest are the bound ones
        self.variables = sorted({name for graph, _ in parts for name in graph.vars})
        self.lock = threading.Lock()
        launches = list[Any]()
        for graph, inputs in parts:
            places = [graph.place(inputs[slot].buffer) for slot in graph.slots]
            launches += [self._settled(launch, graph.vars, places) for launch in graph.launches]
        self.graph = parts[0][0].assemble(launches)
        self._values = array("q", [0]) * max(1, len(self.variables))
        self._where = self._values.buffer_info()[0]

    def __call__(self, variables: Mapping[str, int], then: Mapping[str, int] | None = None) -> None:
        """Replay with these values of the variables; `then` are the values that the next call is likely to have.

        A CPU returns when everything is computed, other devices once it is enqueued. Raises KeyError for a missing variable."""
        with self.lock:
            self._set(variables)
            self.graph(self._where)
            if then is not None:
                self._set(then)
                self.graph.ahead(self._where)

    def profile(self, variables: Mapping[str, int], replays: int = 20) -> list[KernelTime]:
        """Time each kernel over some replays, in the order in which they run."""
        with self.lock:
            self._set(variables)
            return self.graph.profile(self._where, replays)

    def _set(self, variables: Mapping[str, int]) -> None:
        for index, name in enumerate(self.variables):
            self._values[index] = variables[name]

    def _settled(self, launch: Any, variables: Sequence[str], places: Sequence[int]) -> Any:
        """A graph's launch with its inputs in place; what else changes counts in the composite's variables."""
        n, arguments, changes = len(variables), list(launch.arguments), []
        for change in launch.changes:
            if change.value < n:
                changes.append(replace(change, value=self.variables.index(variables[change.value])))
            else:
                arguments[change.argument] = places[change.value - n] + change.addend
        return replace(launch, arguments=arguments, changes=changes)


def compose(parts: Sequence[tuple[Any, Sequence[Tensor]]]) -> Composite | None:
    """Captured TinyJits of one device, or kept graphs, each with the tensors that take its arguments' places, as one native graph.

    None, saying why at DEBUG=1, where one of them is no native graph, or another device's.

    An output that a later part reads must be one of the inputs: a graph's own output buffer is the same in all of its replays."""
    devices = {str(one.device) for _, inputs in parts for one in inputs}
    if len(devices) > 1:
        say(f"graphs are replayed one by one: they are on {', '.join(sorted(devices))}")
        return None
    graphs: list[tuple[Captured, Sequence[Any]]] = []
    for jit, inputs in parts:
        bases = [base(one) for one in inputs]
        if isinstance(jit, StoredGraph):
            graphs.append((jit, bases))
            continue
        if (obstacle := why_not(jit, inputs)) is not None:
            say(f"graphs are replayed one by one: {obstacle}")
            return None
        graphs.append((get_graph_runtime(jit.captured.linear.src[0].src[0], tuple(bases)), bases))
    return Composite(graphs)
