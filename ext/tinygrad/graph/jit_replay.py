"""A captured TinyJit replayed without TinyJit: microseconds of Python where a call through it takes the better part of a millisecond."""

from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from tinygrad import Tensor, UOp
from tinygrad.engine.realize import get_graph_runtime
from tinygrad.uop.ops import Ops

from ext.tinygrad.graph.captured import NativeGraphRunner
from ext.tinygrad.graph.debug_log import say
from ext.tinygrad.graph.profile import KernelTime


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
    uop = tensor.uop if isinstance(tensor, Tensor) else tensor
    assert uop.base.realized is not None, "an input of a captured graph must be realized"
    return uop.base
