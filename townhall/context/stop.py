"""No forgetting: a turn that does not fit is refused."""

from townhall.context.strategy import Window, WindowPlan, refusal
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
        if current.tokens + turn > window.budget:
            needed = window.pinned + current.tokens + turn
            help = "shorten it, begin anew with /reset, raise --max-context, or let old exchanges go with --context slide"
            raise ContextError(refusal(needed, window, help), needed, window.capacity)
        return WindowPlan(current.kept, (), current.memory)

    def settle(self, cache: Cache, removed: tuple[int, int] | None) -> None:
        """Nothing ever leaves."""
