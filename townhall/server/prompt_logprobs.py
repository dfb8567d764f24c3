"""Log-probabilities of a prompt's own ids, which `echo` reports: the model is led along the prompt, a token a step."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.models.llama.logits_processors import TokenLogprob, logprobs
from townhall.language_model import LanguageModel


@dataclass(frozen=True)
class UnscoredToken:
    """An id of which nothing says how likely it was, such as the first of a prompt."""

    token: int


def score(llama: LanguageModel, ids: Sequence[int], top: int, cache: Any) -> Generator[None, None, list[TokenLogprob | UnscoredToken]]:
    """What the model gives each of `ids` after those before it, with the `top` likeliest there; yields after each pass.

    The passes are those of decoding, so that a text has the log-probabilities that were reported when it was sampled, and only one
    position's logits are held at a time. Nothing is left in `cache`: a prompt is not to be read by decode steps.
    """
    draw = _Given(ids, top)
    llama.prefill([], cache)
    generation = llama.generate(list(ids[:1]), len(ids) - 1, draw, cache, frozenset())
    try:
        for _ in generation:
            yield
    finally:
        generation.close()
        llama.prefill([], cache)
    return [*map(UnscoredToken, ids[: len(ids) - len(draw.found)]), *draw.found]


class _Given:
    """Draws the ids of a prompt, one after the other, whatever their logits."""

    def __init__(self, ids: Sequence[int], top: int):
        self._ids, self._top = ids, top
        self.found: list[TokenLogprob] = []

    def __call__(self, logits: np.ndarray, recent: Sequence[int]) -> int:
        token = self._ids[len(recent)]
        self.found.append(logprobs(logits, token, self._top))
        return token
