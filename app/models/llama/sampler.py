"""Logits to one id: penalties, top-k, top-p, min-p, temperature, in llama.cpp's order; temperature 0 is a plain argmax."""

import math
from collections.abc import Sequence

import numpy as np

from app.models.llama.sampling import Sampling, SamplingError

__all__ = ["Sampler", "Sampling", "SamplingError"]


ROWS = 64  # of the table in which the largest logits are looked for


class Sampler:
    """Draws ids one after another from one stream of random numbers: the same seed and logits give the same ids."""

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        # drawn here, so that a text can be told the seed that repeats it
        self.seed = int(np.random.SeedSequence().generate_state(1)[0]) if sampling.seed is None else sampling.seed
        self._random = np.random.default_rng(self.seed)

    def __call__(self, logits: np.ndarray, recent: Sequence[int]) -> int:
        """The next id, from float32 logits (V,) and the ids before it, oldest first; `logits` is left as it is."""
        s = self.sampling
        if s.repeat_penalty != 1 and s.repeat_last_n:
            logits = penalize(logits, recent if s.repeat_last_n < 0 else recent[-s.repeat_last_n :], s.repeat_penalty)
        if s.temperature == 0:
            return int(logits.argmax())
        ids, scores = largest(logits, s.top_k)
        keep = nucleus(scores, s.top_p)
        if s.min_p > 0:
            # scores fall, so what passes is again a prefix; the likeliest always passes
            keep = min(keep, max(1, int(np.count_nonzero(scores >= scores[0] + np.float32(math.log(s.min_p))))))
        if keep == 1:
            return int(ids[0])
        # the largest is 0 before the division, so that no temperature overflows
        weights = np.exp((scores[:keep] - scores[0]) / np.float32(s.temperature))
        cumulative = np.cumsum(weights)
        target = self._random.random(dtype=np.float32) * cumulative[-1]
        drawn = np.searchsorted(cumulative, target, side="right")
        # float32 may round the target up to the total: then the last id that adds anything is meant
        return int(ids[min(drawn, np.searchsorted(cumulative, cumulative[-1], side="left"))])


def penalize(logits: np.ndarray, recent: Sequence[int], penalty: float) -> np.ndarray:
    """A copy in which every id of `recent` is less likely, however often it occurs (Keskar et al. 2019, arXiv:1909.05858)."""
    ids = np.unique(np.asarray(recent, np.int64))
    if not ids.size:
        return logits
    logits = logits.copy()
    seen = logits[ids]
    logits[ids] = np.where(seen > 0, seen / np.float32(penalty), seen * np.float32(penalty))
    return logits


def largest(logits: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(ids, logits) of the k largest, falling; k = 0 means all."""
    if 0 < k < logits.size:
        ids = likely(logits, k)
        scores = logits[ids]
        ids = ids[np.argpartition(scores, -k)[-k:]]
        ids = ids[np.argsort(-logits[ids])]
    else:
        ids = np.argsort(-logits)
    return ids, logits[ids]


def likely(logits: np.ndarray, k: int) -> np.ndarray:
    """Ids among which are the k largest: of a table of all logits the columns whose peaks reach the k-th largest peak, and the rest.

    Partitioning the whole vocabulary takes 2 % of a token; its peaks are found at the speed of memory, and what they leave is little."""
    columns = logits.size // ROWS
    if columns <= 2 * k:
        return np.arange(logits.size)
    peaks = logits[: ROWS * columns].reshape(ROWS, columns).max(axis=0)
    found = np.flatnonzero(~(peaks < np.partition(peaks, -k)[-k]))  # so that a NaN is found as well
    return np.concatenate([np.add.outer(np.arange(ROWS) * columns, found).ravel(), np.arange(ROWS * columns, logits.size)])


def nucleus(scores: np.ndarray, top_p: float) -> int:
    """How many of the falling scores make up `top_p` of their probability, at least one (Holtzman et al. 2020, arXiv:1904.09751)."""
    if top_p >= 1:
        return scores.size
    weights = np.exp(scores - scores[0])
    cumulative = np.cumsum(weights)
    return min(int(np.searchsorted(cumulative, np.float32(top_p) * cumulative[-1], side="left")) + 1, scores.size)
