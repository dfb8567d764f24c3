"""Log-probabilities of a prompt's own ids, which `echo` reports."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

from app.models.llama.logits_processors import TokenLogprob, logprobs
from townhall.language_model import LanguageModel


@dataclass(frozen=True)
class UnscoredToken:
    """An id of which nothing says how likely it was, such as the first of a prompt."""

    token: int


def score(llama: LanguageModel, ids: Sequence[int], top: int, cache: Any) -> Generator[None, None, list[TokenLogprob | UnscoredToken]]:
    """What the model gives each of `ids` after those before it, with the `top` likeliest there; yields after each pass.

    What was in `cache` is lost; afterwards it holds the prompt. The logits of one pass only are held at a time.
    """
    found: list[TokenLogprob] = []
    for rows in llama.score(list(ids), cache):
        following = ids[len(found) + 1 : len(found) + 1 + len(rows)]
        found += [logprobs(row, token, top) for row, token in zip(rows, following, strict=False)]
        yield
    return [*map(UnscoredToken, ids[: len(ids) - len(found)]), *found]
