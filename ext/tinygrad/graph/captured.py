"""What graph runners of every device share: the values that a replay hands over, and which calls a graph can take in."""

import threading
from array import array
from collections.abc import Callable
from typing import Any

from tinygrad import UOp
from tinygrad.device import Compiled
from tinygrad.engine.jit import GraphRunner
from tinygrad.helpers import ansistrip
from tinygrad.uop.ops import Ops

from ext.tinygrad.graph.reasons import say


class NativeGraphRunner(GraphRunner):
    """One captured graph, replayed by one native call.

    `values`, what each call hands over, holds the variables in the order of `vars` and then where the input buffers `slots` are.
    """

    place: Callable[[Any], int]  # where a buffer is: an address, or a driver's handle
    why_not: Callable[[list[Compiled], UOp], str | None]  # the reason why a call cannot be part of such a graph

    def __init__(self, linear: UOp, input_uops: tuple[UOp, ...] = ()):
        super().__init__(linear, input_uops)
        self.slots: list[int] = []  # of the inputs that the graph uses, in the order of their values
        # two threads with one graph: its variables and buffers are the graph's, so one after the other
        self.lock = threading.Lock()
        self.values = array("q")

    def take(self, value_of: dict[int, int]) -> None:
        """Make room for the values of these input slots, each at its index behind the variables."""
        self.slots = sorted(value_of, key=value_of.__getitem__)
        self.values = array("q", [0]) * max(1, len(self.vars) + len(self.slots))

    def start(self, values: int) -> None:
        """Replay with the values at this address."""
        raise NotImplementedError

    def replay(self, input_uops: tuple[UOp, ...], var_vals: dict[str, int]) -> None:
        """Fill in other variables and inputs, and start; RuntimeError for a variable that nobody bound."""
        places = [self.place(input_uops[slot].buffer) for slot in self.slots]
        with self.lock:
            try:
                for index, name in enumerate(self.vars):
                    self.values[index] = var_vals[name]
            except KeyError as error:
                raise RuntimeError(f"unbound Variable {error} used by a captured graph") from None
            for index, value in enumerate(places, len(self.vars)):
                self.values[index] = value
            self.start(self.values.buffer_info()[0])

    @classmethod
    def supports_uop(cls, batch_devs: list[Compiled], new_call: UOp) -> bool:
        if (reason := cls.why_not(batch_devs, new_call)) is not None:
            say(f"{kernel_name(new_call.src[0])} runs outside of the graph: {reason}")
        return reason is None


def param_slot(uop: UOp) -> int | None:
    """Which input of the graph an argument is, or is a view of; None if it is a buffer of the graph's own."""
    params = [u for u in uop.toposort() if u.op is Ops.PARAM]
    assert len(params) <= 1, f"an argument made of {len(params)} inputs"
    return params[0].arg.slot if params else None


def kernel_name(ast: UOp) -> str:
    return ansistrip(ast.arg.name) if ast.op is Ops.PROGRAM else ast.op.name.lower()
