"""Sliding window: the pinned head and the newest exchanges that fit."""

from townhall.context.strategy import Plan, Window
from townhall.facade import Cache


class Slide:
    """Drops whole exchanges, the oldest first, and at least a quarter of the window at once.

    Whatever moves up must be computed again, so the cost is paid once for many turns and not at each. Only the
    newest exchange is spared for as long as it fits: a follow-up question hangs on it.
    """

    name = "slide"

    def choose(self, window: Window, current: Plan, turn: int) -> Plan:
        kept, dropped, freed = list(current.kept), [], 0
        total = current.tokens + turn
        goal = window.capacity // 4 if total > window.budget else 0
        while kept and (total - freed > window.budget or (freed < goal and len(kept) > 1)):
            oldest = kept.pop(0)
            dropped.append(oldest)
            freed += oldest.tokens
        return Plan(tuple(kept), tuple(dropped), current.memory)

    def settle(self, cache: Cache, removed: tuple[int, int] | None) -> None:
        """Nothing to do: what moved up is computed again."""
