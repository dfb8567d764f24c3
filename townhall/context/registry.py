"""The strategies by name; a new one is one class and one entry here."""

from townhall.context.halve import HalveStrategy
from townhall.context.shifting import ShiftStrategy
from townhall.context.slide import SlideStrategy
from townhall.context.stop import StopStrategy
from townhall.context.strategy import ContextStrategy
from townhall.context.summarize import SummarizeStrategy
from townhall.errors import ContextError

_CLASSES: tuple[type[ContextStrategy], ...] = (SlideStrategy, HalveStrategy, ShiftStrategy, SummarizeStrategy, StopStrategy)
STRATEGIES = {strategy.name: strategy for strategy in _CLASSES}


def open_strategy(name: str) -> ContextStrategy:
    """A fresh strategy for one conversation."""
    if name not in STRATEGIES:
        raise ContextError(f"no context strategy is called {name!r}; --context takes {', '.join(STRATEGIES)}", 0, 0)
    return STRATEGIES[name]()
