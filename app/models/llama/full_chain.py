"""All samplers, in the order of llama.cpp's default chain: penalties over a range, DRY, top-n-sigma, top-k, typical-p, top-p, min-p, XTC,
temperature, dynamic or not; or Mirostat in the place of those from top-n-sigma on. docs/samplers.md defines each.

`Sampler` takes this way where a setting is on that it does not know itself. Everything is float64, and equal logits stand in the order of
their ids: what is drawn from the few likeliest ids is what is drawn from all logits, to the bit.
"""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from app.models.llama.dry import RepetitionPenalty
from app.models.llama.reply_repetition import ReplyRepetition
from app.models.llama.sampling_params import SamplingParams
from app.models.llama.sequence_breakers import SequenceBreakers
from ext.tinygrad.top_k import MOST

ESTIMATE = 100  # likeliest ids that Mirostat 1 estimates the distribution's shape from


def asks_for_more(sampling: SamplingParams) -> bool:
    """Is a setting on that takes this chain?"""
    s = sampling
    return bool(
        s.presence_penalty
        or s.frequency_penalty
        or (s.dry_multiplier and s.dry_penalty_last_n)
        or (s.reply_ngram_penalty and s.earlier)
        or s.temperature
        and (s.typical_p < 1 or (s.xtc_probability and s.xtc_threshold <= 0.5) or s.dynatemp_range or s.mirostat)
    )


class FullChain:
    """Draws ids from one stream of random numbers; XTC has another one, so that what it leaves does not depend on what was drawn."""

    # the annotation is a string: numpy.random takes 3 MB, and is imported where it is first used
    def __init__(self, sampling: SamplingParams, seed: int, random: "np.random.Generator", breakers: SequenceBreakers):
        self._sampling, self._random = sampling, random
        self._chances = np.random.default_rng([seed, 1])
        on = sampling.dry_multiplier and sampling.dry_penalty_last_n
        self._dry = RepetitionPenalty(sampling, breakers) if on else None
        penalty, size = sampling.reply_ngram_penalty, sampling.reply_ngram_size
        self._replies = ReplyRepetition(sampling.earlier, penalty, size) if penalty and sampling.earlier else None
        self._surprise = 2 * sampling.mirostat_tau  # Mirostat's μ, in bits
        self._known: tuple[Sequence[int], int] | None = None  # the history that `_held_back` is for, and its length
        self._held_back: dict[int, tuple[int, float]] = {}

    def enough(self, recent: Sequence[int]) -> int | None:
        """As the sampler's."""
        s = self._sampling
        if s.repeat_penalty < 1 or s.presence_penalty < 0 or s.frequency_penalty < 0:
            return None
        if s.temperature and (s.mirostat or s.top_n_sigma):  # what all logits are like decides
            return None
        k = 1 if s.temperature == 0 else s.top_k
        enough = k + len(self._penalties(recent))
        return enough if k and enough <= MOST else None

    def draw_from(self, ids: list[int], scores: list[float], recent: Sequence[int]) -> int:
        """As the sampler's."""
        held_back = self._penalties(recent)
        bent = [(-self._bent(score, *held_back[n]) if n in held_back else -score, n) for n, score in zip(ids, scores, strict=True)]
        bent.sort()
        k = 1 if self._sampling.temperature == 0 else self._sampling.top_k or len(bent)
        return self._choose(np.array([n for _, n in bent[:k]]), -np.array([score for score, _ in bent[:k]]))

    def draw(self, logits: np.ndarray, recent: Sequence[int]) -> int:
        """The next id, from float32 logits (V,)."""
        s, bent = self._sampling, logits.astype(np.float64)
        for n, why in self._penalties(recent).items():
            if n < bent.size:
                bent[n] = self._bent(float(bent[n]), *why)
        if s.temperature == 0:
            return int(bent.argmax())
        if s.mirostat:
            return self._mirostat(bent)
        best = bent.max()
        if s.top_n_sigma:
            possible = bent[np.isfinite(bent)]
            if possible.size:
                bent = np.where(bent >= best - s.top_n_sigma * possible.std(), bent, -np.inf)
        if not s.top_k and s.typical_p == s.top_p == 1 and s.min_p:
            ids = np.flatnonzero(bent - best >= math.log(s.min_p))  # the others need not be put in order
        else:
            ids = _likeliest(bent, s.top_k)
        if not ids.size:
            ids = np.arange(bent.size)
        ids = ids[np.argsort(-bent[ids], kind="stable")]
        return self._choose(ids[: s.top_k or None], bent[ids[: s.top_k or None]])

    def _penalties(self, recent: Sequence[int]) -> dict[int, tuple[int, float]]:
        """(how often it was said lately, what DRY and earlier replies take off) of every id that a penalty changes."""
        if self._known and self._known[0] is recent and self._known[1] == len(recent):
            return self._held_back
        s = self._sampling
        counts: Counter[int] = Counter()
        if s.repeat_last_n and (s.repeat_penalty != 1 or s.presence_penalty or s.frequency_penalty):
            counts.update(recent[-s.repeat_last_n :] if s.repeat_last_n > 0 else recent)
        dry = self._dry.penalties(recent) if self._dry else {}
        for n, penalty in self._replies.penalties(recent).items() if self._replies else ():
            dry[n] = dry.get(n, 0.0) + penalty
        self._held_back = {n: (count, dry.pop(n, 0.0)) for n, count in counts.items()}
        self._held_back |= {n: (0, penalty) for n, penalty in dry.items()}
        self._known = recent, len(recent)
        return self._held_back

    def _bent(self, score: float, count: int, dry: float) -> float:
        s = self._sampling
        if count:
            score = score / s.repeat_penalty if score > 0 else score * s.repeat_penalty
            score -= count * s.frequency_penalty + s.presence_penalty
        return score - dry

    def _choose(self, ids: np.ndarray, scores: np.ndarray) -> int:
        """One of these ids, by their falling logits, float64."""
        s = self._sampling
        leaves_out = bool(s.xtc_probability) and float(self._chances.random()) < s.xtc_probability  # a number for every id that is drawn
        scores = scores[: max(1, int(np.count_nonzero(scores > -np.inf)))]
        if scores.size == 1 or not math.isfinite(scores[0]):
            return int(ids[0])
        scores = scores - scores[0]  # relative to the likeliest: at 0 no temperature overflows
        if s.typical_p < 1:
            kept = typical(scores, s.typical_p)
            ids, scores = ids[kept], scores[kept] - scores[kept[0]]
        if s.top_p < 1:
            scores = scores[: nucleus_size(scores, s.top_p)]
        if s.min_p > 0:
            scores = scores[: int(np.count_nonzero(scores >= math.log(s.min_p)))]
        if leaves_out and (first := left_out(scores, s.xtc_threshold)):
            ids, scores = ids[first:], scores[first:] - scores[first]
        temperature = dynamic(scores, s.temperature, s.dynatemp_range, s.dynatemp_exponent) if s.dynatemp_range else s.temperature
        return int(ids[self._drawn(scores, temperature)])

    def _drawn(self, scores: np.ndarray, temperature: float) -> int:
        """A place among falling scores, the first of which is 0."""
        if scores.size == 1 or temperature <= 0:
            return 0
        with np.errstate(over="ignore"):  # a tiny temperature leaves the first alone
            cumulative = np.cumsum(np.exp(scores / temperature))
        target = float(self._random.random(dtype=np.float32)) * cumulative[-1]
        # the target may be rounded up to the total: then the last id that adds anything is meant
        return int(min(np.searchsorted(cumulative, target, side="right"), np.searchsorted(cumulative, cumulative[-1], side="left")))

    def _mirostat(self, logits: np.ndarray) -> int:
        """Mirostat 1 or 2 (Basu et al. 2021, arXiv 2007.14966). A surprise is taken among what was kept, as llama.cpp does it."""
        s, best = self._sampling, logits.max()
        if not math.isfinite(best):
            return int(logits.argmax())
        with np.errstate(over="ignore"):
            scores = (logits - best) / s.temperature
        total = math.log(float(np.exp(scores).sum()))
        if s.mirostat == 1:
            few = _likeliest(scores, ESTIMATE)
            few = few[np.argsort(-scores[few], kind="stable")][:ESTIMATE]
            k = mirostat_size(scores[few], self._surprise, scores.size)
            ids = few if k <= few.size else _likeliest(scores, k)
        else:
            k, ids = scores.size, np.flatnonzero(scores >= total - self._surprise * math.log(2))  # a surprise of at most μ bits
            if not ids.size:
                k, ids = 1, np.array([logits.argmax()])
        ids = ids[np.argsort(-scores[ids], kind="stable")][:k]
        kept = scores[ids]
        kept = kept[: max(1, int(np.count_nonzero(kept > -np.inf)))]
        at = self._drawn(kept, 1.0)
        surprise = (math.log(float(np.exp(kept).sum())) - float(kept[at])) / math.log(2)
        self._surprise -= s.mirostat_eta * (surprise - s.mirostat_tau)
        return int(ids[at])


def _likeliest(scores: np.ndarray, k: int) -> np.ndarray:
    """Ids of all that are no less than the k-th largest, rising; k = 0 means all."""
    if not 0 < k < scores.size:
        return np.arange(scores.size)
    ids = np.flatnonzero(scores >= np.partition(scores, -k)[-k])
    return ids if ids.size else np.arange(scores.size)  # NaN


def _shares(scores: np.ndarray) -> np.ndarray:
    """Probabilities of scores whose largest is 0."""
    shares = np.exp(scores)
    return shares / shares.sum()


def typical(scores: np.ndarray, mass: float) -> np.ndarray:
    """Places, rising, of the fewest scores that make up `mass` and whose surprise is nearest to the entropy (Meister et al. 2022, arXiv
    2202.00666)."""
    shares = _shares(scores)
    surprises = math.log(float(np.exp(scores).sum())) - scores
    order = np.argsort(np.abs(surprises - float((shares * surprises).sum())), kind="stable")
    return np.sort(order[: int(np.searchsorted(np.cumsum(shares[order]), mass, side="left")) + 1])


def nucleus_size(scores: np.ndarray, top_p: float) -> int:
    """How many falling scores make up that share (Holtzman et al. 2020, arXiv 1904.09751)."""
    cumulative = np.cumsum(np.exp(scores))
    return int(np.searchsorted(cumulative, top_p * cumulative[-1], side="left")) + 1


def left_out(scores: np.ndarray, threshold: float) -> int:
    """XTC (text-generation-webui, pull request 6335): how many of the likeliest go where at least two reach the threshold: all but the
    last of those that do."""
    return max(0, int(np.count_nonzero(_shares(scores) >= threshold)) - 1) if threshold <= 0.5 else 0


def dynamic(scores: np.ndarray, middle: float, reach: float, exponent: float) -> float:
    """The temperature from `middle` - `reach`, at least 0, to `middle` + `reach` that the entropy's share in the largest possible one says
    (entropy-based dynamic temperature of koboldcpp and llama.cpp)."""
    least, most = max(0.0, middle - reach), middle + reach
    if scores.size < 2:
        return middle
    shares = _shares(scores)
    entropy = float((shares * (math.log(float(np.exp(scores).sum())) - scores)).sum())
    return least + (most - least) * min(1.0, max(0.0, entropy / math.log(scores.size))) ** exponent


def mirostat_size(scores: np.ndarray, surprise: float, vocabulary: int) -> int:
    """Mirostat 1's k: how many of so many ids are kept for that surprise, in bits, if probabilities fall by Zipf's law as these do."""
    scores = scores[scores > -np.inf]
    if scores.size < 2:
        return 1
    ranks = np.log(np.arange(2, scores.size + 1) / np.arange(1, scores.size))
    slope = float(ranks @ (scores[:-1] - scores[1:]) / (ranks @ ranks))
    if slope <= 0:
        return vocabulary
    above = slope - 1
    # ((s - 1) 2^μ / (1 - N^(1 - s)))^(1 / s) by logarithms, so that nothing overflows; where s is 1 the quotient's limit is 2^μ / ln N
    if abs(above) < 1e-9:
        size = surprise * math.log(2) - math.log(math.log(vocabulary))
    else:
        size = surprise * math.log(2) + math.log(abs(above)) - math.log(abs(math.expm1(-above * math.log(vocabulary))))
    return max(1, int(math.exp(min(size / slope, math.log(vocabulary)))))
