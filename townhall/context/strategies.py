"""The context strategies and their registry: what stays in the window when a conversation no longer fits.

A new strategy is one class here (or in a module of its own) and one entry in STRATEGIES.
"""

from townhall.context.strategy import ContextStrategy, Window, WindowPlan, evict, refusal
from townhall.errors import ContextError
from townhall.language_model import Cache


class StopStrategy:
    """Refuses with how many tokens over, and what would help."""

    name = "stop"
    label = "refuse what does not fit"
    memory = 0

    def prepare(self, cache: Cache) -> None:
        """Nothing ever leaves."""

    def choose(self, window: Window, current: WindowPlan, turn: int) -> WindowPlan:
        if not window.holds(current.tokens, turn):
            needed = window.pinned + current.tokens + turn
            help = "shorten it, begin anew with /reset, raise --max-context, or let old exchanges go with --context slide"
            raise ContextError(refusal(needed, window, help), needed, window.capacity)
        return WindowPlan(current.kept, (), current.memory)

    def settle(self, cache: Cache, removed: tuple[int, int] | None) -> None:
        """Nothing ever leaves."""


class SlideStrategy:
    """Drops whole exchanges, the oldest first, and at least a quarter of the window at once.

    Whatever moves up must be computed again, so the cost is paid once for many turns and not at each.

    One exception: the newest exchange goes only where the turn does not fit beside it. Where all the others are less than a quarter of the
    window, these are all that is freed: "go on" after a long story must find the story. The next overflow then comes sooner, and computes
    no more again than that one exchange.
    """

    name = "slide"
    label = "forget the oldest"
    memory = 0

    def prepare(self, cache: Cache) -> None:
        """Nothing to do: an overflow is a prefill."""

    def goal(self, window: Window) -> int:
        """Tokens that an overflow frees at least."""
        return window.span // 4

    def choose(self, window: Window, current: WindowPlan, turn: int) -> WindowPlan:
        dropped = evict(window, current, turn, self.goal(window))
        kept = current.kept[len(dropped) :]
        plan = WindowPlan(kept, dropped, current.memory)
        # a memory is the last to go
        return plan if kept or window.holds(plan.tokens, turn) else WindowPlan(kept, dropped)

    def settle(self, cache: Cache, removed: tuple[int, int] | None) -> None:
        """Nothing to do: what moved up is computed again."""


class HalveStrategy(SlideStrategy):
    """Chooses as slide does, and frees twice as much: half as many overflows, each of which forgets more."""

    name = "halve"
    label = "forget half at once"

    def goal(self, window: Window) -> int:
        return window.span // 2


class ShiftStrategy(SlideStrategy):
    """Chooses as slide does; a turn costs its own tokens even when it overflows.

    What was moved still carries what its layers took from the exchanges that are gone: close to a fresh prefill, not equal to it.
    """

    name = "shift"
    label = "forget, reread nothing"

    def prepare(self, cache: Cache) -> None:
        cache.prepare_remove()

    def settle(self, cache: Cache, removed: tuple[int, int] | None) -> None:
        if removed:
            cache.remove(*removed)


BOUND = 128  # tokens of a memory, its markers included


class SummarizeStrategy(SlideStrategy):
    """Chooses as slide does. Between the turns the model writes down what the next one would push out, together with the memory so far.

    A turn that is longer than the recent ones may still overflow before anything was written: slide serves it, and what it dropped
    is written down after it.
    """

    name = "summarize"
    label = "forget, keep notes"
    memory = BOUND


_CLASSES: tuple[type[ContextStrategy], ...] = (SlideStrategy, HalveStrategy, ShiftStrategy, SummarizeStrategy, StopStrategy)
STRATEGIES = {strategy.name: strategy for strategy in _CLASSES}


def open_strategy(name: str) -> ContextStrategy:
    """A fresh strategy for one conversation."""
    if name not in STRATEGIES:
        raise ContextError(f"no context strategy is called {name!r}; --context takes {', '.join(STRATEGIES)}", 0, 0)
    return STRATEGIES[name]()
