"""Sliding window with a memory: what leaves is folded into a few sentences first."""

from townhall.context.slide import SlideStrategy

BOUND = 128  # tokens of a memory, its markers included


class SummarizeStrategy(SlideStrategy):
    """Chooses as slide does. Between the turns the model writes down what the next one would push out, together with the memory so far.

    A turn that is longer than the recent ones may still overflow before anything was written: slide serves it, and what it dropped
    is written down after it.
    """

    name = "summarize"
    label = "forget, keep notes"
    memory = BOUND
