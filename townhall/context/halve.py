"""Sliding window that lets go of half of it at once, as llama.cpp's context shift does (n_discard = n_left / 2)."""

from townhall.context.slide import SlideStrategy
from townhall.context.strategy import Window


class HalveStrategy(SlideStrategy):
    """Chooses as slide does, and frees twice as much: half as many overflows, each of which forgets more."""

    name = "halve"
    label = "forget half at once"

    def goal(self, window: Window) -> int:
        return window.capacity // 2
