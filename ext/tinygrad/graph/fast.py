"""A captured TinyJit replayed without TinyJit: microseconds of Python where a call through it takes the better part of a millisecond."""

from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from tinygrad import Tensor, UOp
from tinygrad.engine.realize import get_graph_runtime
from tinygrad.uop.ops import Ops

from ext.tinygrad.graph import pool
from ext.tinygrad.graph.profile import KernelTime, profile
from ext.tinygrad.graph.reasons import say
from ext.tinygrad.graph.runner import CPUGraphRunner, address


class Replay:
    """A captured graph with its inputs bound: call it with the variables.

    What it computes lies in `result`, the tensors that the capture returned. The inputs are buffers, not values: write into them between
    calls, or bind() others. They live as long as the
    Replay; TinyJit's free_intermediates() ends both."""

    def __init__(self, runner: CPUGraphRunner, result: Any, inputs: Sequence[UOp]):
        self.result = result
        self.runner = runner
        self._inputs = tuple(inputs)
        self._values = array("q", [0]) * len(runner.values)
        for index, slot in enumerate(runner.slots, len(runner.vars)):
            self._values[index] = address(self._inputs[slot].buffer)
        # looked up once: this is the inner loop of decoding
        self._graph, self._where = runner.plan.address, self._values.buffer_info()[0]
        self._variables = tuple(enumerate(runner.vars))

    def __call__(self, variables: Mapping[str, int]) -> None:
        """Replay with these values of the variables; returns when everything is computed. Raises KeyError for a missing variable."""
        with self.runner.lock:
            for index, name in self._variables:
                self._values[index] = variables[name]
            pool.current_pool().replay(self._graph, self._where)

    def bind(self, inputs: Sequence[Tensor | UOp]) -> "Replay":
        """The same graph with other input buffers, in the order in which the TinyJit takes them."""
        return Replay(self.runner, self.result, [base(one) for one in inputs])

    def profile(self, variables: Mapping[str, int], replays: int = 20) -> list[KernelTime]:
        """Time each kernel over some replays with one and the same input, in the order in which they run."""
        with self.runner.lock:
            for index, name in self._variables:
                self._values[index] = variables[name]
            return profile(pool.current_pool(), self.runner.plan, self._where, replays)


def fast_replay(jit: Any, inputs: Sequence[Tensor | UOp] = ()) -> Replay | None:
    """A way to replay `jit` (a captured TinyJit) directly; None, saying why at DEBUG=1, if it is more than one native graph.

    `inputs` are the tensors that the TinyJit takes as arguments, in its order. TinyJit copies an input that the graph itself writes as its
    output; nothing is copied here, so such inputs are refused."""
    if (obstacle := why_not(jit, inputs)) is not None:
        say(f"no direct replay: {obstacle}")
        return None
    bases = [base(one) for one in inputs]
    return Replay(get_graph_runtime(jit.captured.linear.src[0].src[0], tuple(bases)), jit.captured.ret, bases)


def why_not(jit: Any, inputs: Sequence[Tensor | UOp], runners: tuple[type, ...] = (CPUGraphRunner,)) -> str | None:
    """The reason why `jit` cannot be replayed directly with these inputs by one of `runners`, None if it can."""
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
    if not isinstance(runner := get_graph_runtime(calls[0].src[0], tuple(base(one) for one in inputs)), runners):
        return f"its graph belongs to {type(runner).__name__}"
    return None


def base(tensor: Tensor | UOp) -> UOp:
    """The buffer behind a realized tensor, as TinyJit passes it on."""
    uop = tensor.uop if isinstance(tensor, Tensor) else tensor
    assert uop.base.realized is not None, "an input of a captured graph must be realized"
    return uop.base
