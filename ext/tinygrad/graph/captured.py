"""What graph runners of every device share: what each kernel of a capture is given, and what a replay hands over.

`Replay` replays a captured TinyJit in microseconds of Python, where a call through TinyJit takes the better part of a millisecond.
"""

import threading
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tinygrad import Tensor, UOp
from tinygrad.device import Compiled, Device
from tinygrad.engine.jit import GraphRunner
from tinygrad.engine.realize import get_call_arg_uops, get_graph_runtime, resolve_params
from tinygrad.helpers import ansistrip
from tinygrad.uop.ops import Ops, buffers

from ext.tinygrad.graph.profile import KernelTime, say


@dataclass(frozen=True)
class ArgumentUpdate:
    """An argument that each replay sets: values[value] + addend (a variable, or where an input buffer is and an offset into it)."""

    argument: int
    value: int
    addend: int = 0


class NativeGraph(Protocol):
    """Kernels with their arguments, which a device replays by one native call."""

    def __call__(self, values: int) -> None:
        """Start with the 64-bit values (variables, places of buffers) at this address; a CPU returns when everything is computed."""

    def ahead(self, values: int) -> None:
        """Set what the next replay is expected to set, while the device is at work; other values may come after all."""

    def profile(self, values: int, replays: int) -> list[KernelTime]:
        """Time each kernel over some replays, in the order in which they run."""


class Captured(Protocol):
    """A captured graph as it can be composed with others: launches whose variables and inputs are set anew."""

    @property
    def vars(self) -> Sequence[str]:
        """Names of the variables, in the order of their values."""

    @property
    def slots(self) -> Sequence[int]:
        """Which inputs the graph uses, in the order of their values, which follow the variables'."""

    @property
    def launches(self) -> Sequence[Any]:
        """Each with `arguments` (64-bit words) and the `changes` of them: values are the variables, then the inputs."""

    def place(self, buffer: Any) -> int:
        """Where a buffer is: an address, or a driver's handle."""

    def assemble(self, launches: Sequence[Any]) -> NativeGraph:
        """Launches as the device replays them."""


class NativeGraphRunner(GraphRunner):
    """One captured graph, replayed by one native call: tinygrad's extension point, a subclass for each kind of device.

    `values`, what each call hands over, holds the variables in the order of `vars` and then where the input buffers `slots` are.
    """

    place: Callable[[Any], int]
    assemble: Callable[[Sequence[Any]], NativeGraph]
    why_not: Callable[[list[Compiled], UOp], str | None]  # the reason why a call cannot be part of such a graph

    def __init__(self, linear: UOp, input_uops: tuple[UOp, ...] = ()):
        super().__init__(linear, input_uops)
        self.opened: Any = Device[self.calls[0][2][0].device]
        # two threads with one graph: its variables and buffers are the graph's, so one after the other
        self.lock = threading.Lock()
        self.slots: list[int] = []
        self.launches = self._launches(input_uops)
        self.values = array("q", [0]) * max(1, len(self.vars) + len(self.slots))
        self.graph = self.assemble(self.launches)

    def launch(self, ast: UOp, bufs: list[Any], runtime: Any, arguments: list[int], changes: list[ArgumentUpdate], nbytes: int) -> Any:
        """A call, given these 64-bit words (buffers, then variables) and buffers of nbytes in all, as assemble() takes it."""
        raise NotImplementedError

    def __call__(self, input_uops: tuple[UOp, ...], var_vals: dict[str, int], wait: bool = False) -> float | None:
        """Replay with other variables and inputs; waits for the device, and returns the seconds it took, if `wait`.

        RuntimeError for a variable without a value."""
        started = time.perf_counter()
        places = [self.place(input_uops[slot].buffer) for slot in self.slots]
        with self.lock:
            try:
                for index, name in enumerate(self.vars):
                    self.values[index] = var_vals[name]
            except KeyError as error:
                raise RuntimeError(f"unbound Variable {error} used by a captured graph") from None
            for index, value in enumerate(places, len(self.vars)):
                self.values[index] = value
            self.graph(self.values.buffer_info()[0])
        if not wait:
            return None
        self.opened.synchronize()
        return time.perf_counter() - started

    @classmethod
    def supports_uop(cls, batch_devs: list[Compiled], new_call: UOp) -> bool:
        if (reason := cls.why_not(batch_devs, new_call)) is not None:
            say(f"{kernel_name(new_call.src[0])} runs outside of the graph: {reason}")
        return reason is None

    def _launches(self, input_uops: tuple[UOp, ...]) -> list[Any]:
        """Every call, with the inputs of the capture in place."""
        value_of: dict[int, int] = {}  # input slot -> index into values, after the variables
        launches = []
        calls = zip(self.linear.src, self.calls, self.runtimes, strict=True)  # one device, so one of self.calls for each call
        for call, (_, ast, bufs, device_vars), runtime in calls:
            arguments, changes = [], []
            info = ast.arg if ast.op is Ops.PROGRAM else None
            positions = info.globals if info else range(len(bufs))
            arg_uops, resolved = get_call_arg_uops(call), resolve_params(call, input_uops)
            for argument, position in enumerate(positions):
                arguments.append(self.place(bufs[position]))
                if (slot := param_slot(arg_uops[position])) is not None:
                    # a view of an input: what changes is where the input begins
                    addend = arguments[-1] - self.place(input_uops[slot].buffer)
                    changes.append(ArgumentUpdate(argument, len(self.vars) + value_of.setdefault(slot, len(value_of)), addend))
            for variable in info.vars if info else ():
                if variable.expr in self.vars:
                    changes.append(ArgumentUpdate(len(arguments), self.vars.index(variable.expr)))
                arguments.append(device_vars.get(variable.expr, 0))
            nbytes = sum({self.place(resolved[p].buffer): bufs[p].nbytes for p in positions}.values())
            launches.append(self.launch(ast, bufs, runtime, arguments, changes, nbytes))
        self.slots = sorted(value_of, key=value_of.__getitem__)
        return launches


def param_slot(uop: UOp) -> int | None:
    """Which input of the graph an argument is, or is a view of; None if it is a buffer of the graph's own."""
    params = [u for u in uop.toposort() if u.op is Ops.PARAM]
    assert len(params) <= 1, f"an argument made of {len(params)} inputs"
    return params[0].arg.slot if params else None


def kernel_name(ast: UOp) -> str:
    return ansistrip(ast.arg.name) if ast.op is Ops.PROGRAM else ast.op.name.lower()


class Replay:
    """A captured graph with its inputs bound: call it with the variables.

    What it computes lies in `result`, the tensors that the capture returned. The inputs are buffers, not values: write into them between
    calls, or bind() others. They live as long as the Replay; TinyJit's free_intermediates() ends both."""

    def __init__(self, runner: NativeGraphRunner, result: Any, inputs: Sequence[UOp]):
        self.result = result
        self.runner = runner
        self._inputs = tuple(inputs)
        self._values = array("q", [0]) * len(runner.values)
        for index, slot in enumerate(runner.slots, len(runner.vars)):
            self._values[index] = runner.place(self._inputs[slot].buffer)
        self._where = self._values.buffer_info()[0]

    def __call__(self, variables: Mapping[str, int]) -> None:
        """Replay with these values of the variables. Raises KeyError for a missing variable.

        A CPU returns when everything is computed, other devices once it is enqueued."""
        with self.runner.lock:
            self._set(variables)
            self.runner.graph(self._where)

    def bind(self, inputs: Sequence[Tensor | UOp]) -> "Replay":
        """The same graph with other input buffers, in the order in which the TinyJit takes them."""
        return Replay(self.runner, self.result, [base(one) for one in inputs])

    def profile(self, variables: Mapping[str, int], replays: int = 20) -> list[KernelTime]:
        """Time each kernel over some replays with one and the same input, in the order in which they run."""
        with self.runner.lock:
            self._set(variables)
            return self.runner.graph.profile(self._where, replays)

    def _set(self, variables: Mapping[str, int]) -> None:
        for index, name in enumerate(self.runner.vars):
            self._values[index] = variables[name]


def fast_replay(jit: Any, inputs: Sequence[Tensor | UOp] = ()) -> Replay | None:
    """A way to replay `jit` (a captured TinyJit) directly; None, saying why at DEBUG=1, if it is more than one native graph.

    `inputs` are the tensors that the TinyJit takes as arguments, in its order. TinyJit copies an input that the graph itself writes as its
    output; nothing is copied here, so such inputs are refused."""
    if (obstacle := why_not(jit, inputs)) is not None:
        say(f"no direct replay: {obstacle}")
        return None
    bases = [base(one) for one in inputs]
    return Replay(get_graph_runtime(jit.captured.linear.src[0].src[0], tuple(bases)), jit.captured.ret, bases)


def why_not(jit: Any, inputs: Sequence[Tensor | UOp]) -> str | None:
    """The reason why `jit` cannot be replayed directly with these inputs, None if it can."""
    captured = jit.captured
    if captured is None:
        return "the TinyJit is not captured yet"
    calls = captured.linear.src
    if len(calls) != 1 or calls[0].src[0].op is not Ops.CUSTOM_FUNCTION or calls[0].src[0].arg != "graph":
        return f"it is captured as {len(calls)} calls, not as one graph"
    if len(inputs) != len(captured.expected_input_info):
        return f"it takes {len(captured.expected_input_info)} input tensors, {len(inputs)} are given"
    if any(base(one) in captured._written_uops for one in inputs):
        return "one of the inputs is also an output of the graph"
    if not isinstance(runner := get_graph_runtime(calls[0].src[0], tuple(base(one) for one in inputs)), NativeGraphRunner):
        return f"its graph belongs to {type(runner).__name__}"
    return None


def base(tensor: Tensor | UOp) -> UOp:
    """The buffer behind a realized tensor, as TinyJit passes it on."""
    found = (tensor.uop if isinstance(tensor, Tensor) else tensor).base
    # UOp.realized takes 5 µs to find the same, for 400 tensors of a pass
    assert buffers.get(found) is not None or found.realized is not None, "an input of a captured graph must be realized"
    return found
