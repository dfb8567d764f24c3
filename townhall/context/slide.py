"""Sliding window: the pinned head and the newest exchanges that fit."""

from townhall.context.strategy import Window, WindowPlan, evict
from townhall.language_model import Cache


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
        return window.capacity // 4

    def choose(self, window: Window, current: WindowPlan, turn: int) -> WindowPlan:
        dropped = evict(window, current, turn, self.goal(window))
        kept = current.kept[len(dropped) :]
        plan = WindowPlan(kept, dropped, current.memory)
        # a memory is the last to go
        return plan if kept or plan.tokens + turn <= window.budget else WindowPlan(kept, dropped)

    def settle(self, cache: Cache, removed: tuple[int, int] | None) -> None:
        """Nothing to do: what moved up is computed again."""
