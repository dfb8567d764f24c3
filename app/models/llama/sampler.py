"""Logits to one id: repeat penalty, top-n-sigma, top-k, top-p, min-p, temperature, in llama.cpp's order; temperature 0 is a plain argmax.

What else there is (DRY, XTC, Mirostat …) is in `app/models/llama/full_chain.py`, which takes over where a setting asks for it.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from app.models.llama.full_chain import FullChain, asks_for_more
from app.models.llama.sampling_params import SamplingError, SamplingParams
from app.models.llama.sequence_breakers import NO_BREAKERS, SequenceBreakers
from ext.tinygrad.top_k import MOST, TopK

__all__ = ["Sampler", "SamplingParams", "SamplingError"]


class Sampler:
    """Draws ids one after another from one stream of random numbers: the same seed and logits give the same ids."""

    def __init__(self, sampling: SamplingParams, breakers: SequenceBreakers = NO_BREAKERS) -> None:
        """`breakers` are those of DRY, for the vocabulary."""
        self.sampling = sampling
        # drawn here, so that the seed that reproduces a text can be reported
        self.seed = int(np.random.SeedSequence().generate_state(1)[0]) if sampling.seed is None else sampling.seed
        self._random = np.random.default_rng(self.seed)
        self._top_k = TopK()
        self._chain = FullChain(sampling, self.seed, self._random, breakers) if asks_for_more(sampling) else None

    def __call__(self, logits: np.ndarray, recent: Sequence[int]) -> int:
        """The next id, from float32 logits (V,) and the ids before it, oldest first; `logits` is left as it is."""
        enough = self.enough(recent)
        if enough is not None and enough > 1:  # of one, argmax is quicker
            found = self._top_k(logits, min(enough, logits.size))
            if found is not None and found[0]:
                return self.draw_from(*found, recent)
        return self._chain.draw(logits, recent) if self._chain else self._draw(logits, self._penalized(recent))

    def enough(self, recent: Sequence[int]) -> int | None:
        """How many of the likeliest ids are sure to hold the next one; None where that is none or too many.

        A penalty only takes away, so those that are likeliest under it are among as many of the likeliest without it, and what was said."""
        if self._chain:
            return self._chain.enough(recent)
        s = self.sampling
        k = 1 if s.temperature == 0 else s.top_k
        enough = k + len(frozenset(self._penalized(recent)))
        needs_all = s.repeat_penalty < 1 or (s.top_n_sigma and s.temperature)  # the deviation is that of all logits
        return enough if k and enough <= MOST and not needs_all else None

    def _penalized(self, recent: Sequence[int]) -> Sequence[int]:
        s = self.sampling
        if s.repeat_penalty == 1 or not s.repeat_last_n:
            return ()
        return recent[-s.repeat_last_n :] if s.repeat_last_n > 0 else recent

    def draw_from(self, ids: list[int], scores: list[float], recent: Sequence[int]) -> int:
        """The next id from a few, in plain numbers: as many of the likeliest as are `enough`, falling, or all ids."""
        if self._chain:
            return self._chain.draw_from(ids, scores, recent)
        s, said = self.sampling, frozenset(self._penalized(recent))
        k = 1 if s.temperature == 0 else s.top_k
        if not said.isdisjoint(ids):
            penalty = s.repeat_penalty
            processed = [
                score if n not in said else score / penalty if score > 0 else score * penalty for n, score in zip(ids, scores, strict=True)
            ]
            order = sorted(range(len(ids)), key=processed.__getitem__, reverse=True)
            ids, scores = [ids[i] for i in order], [processed[i] for i in order]
        best = scores[0]
        if k == 1 or best == -math.inf:
            return ids[0]
        # from here on relative to the likeliest: at 0 no temperature overflows
        falling = [score - best for score in scores[:k]]
        keep = len(falling)
        if s.top_p < 1:
            shares = list(accumulate(map(math.exp, falling)))
            keep = min(keep, bisect_left(shares, s.top_p * shares[-1]) + 1)
        if s.min_p > 0:
            least = math.log(s.min_p)
            keep = min(keep, sum(score >= least for score in falling))
        if keep == 1:
            return ids[0]
        cumulative = list(accumulate(math.exp(score / s.temperature) for score in falling[:keep]))
        target = float(self._random.random(dtype=np.float32)) * cumulative[-1]
        return ids[min(bisect_right(cumulative, target), bisect_left(cumulative, cumulative[-1]))]

    def _draw(self, logits: np.ndarray, recent: Sequence[int]) -> int:
        """The same over arrays, for any of these settings."""
        s = self.sampling
        if recent:
            logits = penalize(logits, recent, s.repeat_penalty)
        if s.temperature == 0:
            return int(logits.argmax())
        if s.top_n_sigma:
            logits = within_sigma(logits, s.top_n_sigma)
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


def within_sigma(logits: np.ndarray, n: float) -> np.ndarray:
    """A copy with -inf for whatever is more than n standard deviations of the logits below the largest (arXiv 2411.07641)."""
    finite = logits[np.isfinite(logits)]
    if not finite.size:
        return logits
    return np.where(logits >= finite.max() - np.float32(n) * finite.std(), logits, np.float32(-np.inf))


def largest(logits: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(ids, logits) of the k largest, falling; k = 0 means all."""
    if 0 < k < logits.size:
        ids = np.argpartition(logits, -k)[-k:]
        ids = ids[np.argsort(-logits[ids])]
    else:
        ids = np.argsort(-logits)
    return ids, logits[ids]


def nucleus(scores: np.ndarray, top_p: float) -> int:
    """How many of the falling scores make up `top_p` of their probability, at least one (Holtzman et al. 2020, arXiv:1904.09751)."""
    if top_p >= 1:
        return scores.size
    weights = np.exp(scores - scores[0])
    cumulative = np.cumsum(weights)
    return min(int(np.searchsorted(cumulative, np.float32(top_p) * cumulative[-1], side="left")) + 1, scores.size)
