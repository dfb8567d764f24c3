"""Shifting window: what slide keeps, with its keys and values moved instead of computed again."""

from townhall.context.slide import SlideStrategy
from townhall.language_model import Cache


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
