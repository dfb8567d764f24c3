"""What the samplers are defined to do, written down one id at a time, without a line of theirs. Probabilities are dicts: id → share."""

import math
from collections.abc import Sequence
from typing import Any

Scores = dict[int, float]


def chances(scores: Scores) -> Scores:
    """Softmax."""
    best = max(scores.values())
    weights = {n: math.exp(score - best) for n, score in scores.items()}
    total = math.fsum(weights.values())
    return {n: weight / total for n, weight in weights.items()}


def ranked(scores: Scores) -> list[int]:
    """The likeliest first; of equal ones the smallest id."""
    return sorted(scores, key=lambda n: (-scores[n], n))


def penalties(scores: Scores, said: Sequence[int], repeat: float, presence: float, frequency: float, last_n: int) -> Scores:
    """llama.cpp's three penalties: an id's logit is divided or multiplied once, and lowered for each time that it occurs in the range."""
    lately = list(said)[len(said) - min(last_n, len(said)) :] if last_n >= 0 else list(said)
    bent = dict(scores)
    for n in set(lately) & set(scores):
        bent[n] = bent[n] / repeat if bent[n] > 0 else bent[n] * repeat
        bent[n] -= lately.count(n) * frequency + presence
    return bent


def dry_lengths(said: Sequence[int], breakers: Sequence[Sequence[int]], last_n: int) -> dict[int, int]:
    """The longest repetition that each id would go on with: the end of the text, found earlier, and the id that stands behind it there.

    A repetition lies in the last `last_n` ids and behind the last breaker."""
    text = list(said)[len(said) - min(last_n, len(said)) :] if last_n >= 0 else list(said)
    behind = len(text)
    for breaker in breakers:
        for end in range(len(said), len(breaker) - 1, -1):
            if list(said[end - len(breaker) : end]) == list(breaker):
                behind = min(behind, len(said) - end)
                break
    found: dict[int, int] = {}
    for end in range(1, len(text)):  # text[end] would come again
        length = 0
        while length < min(end, behind) and text[end - 1 - length] == text[len(text) - 1 - length]:
            length += 1
        found[text[end]] = max(length, found.get(text[end], 0))
    return found


def dry(scores: Scores, said: Sequence[int], multiplier: float, base: float, allowed: int, last_n: int, breakers: Sequence[Any]) -> Scores:
    """text-generation-webui's pull request 5677: multiplier · base^(length - allowed) is taken off."""
    bent = dict(scores)
    for n, length in dry_lengths(said, breakers, last_n).items():
        if length >= allowed and n in bent and [n] not in [list(breaker) for breaker in breakers]:
            bent[n] -= multiplier * base ** (length - allowed)
    return bent


def top_n_sigma(scores: Scores, n: float) -> Scores:
    """arXiv 2411.07641: logits within n standard deviations of the largest."""
    values = list(scores.values())
    mean = math.fsum(values) / len(values)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
    return {one: score for one, score in scores.items() if score >= max(values) - n * deviation}


def top_k(scores: Scores, k: int) -> Scores:
    return {n: scores[n] for n in ranked(scores)[: k or None]}


def typical(scores: Scores, mass: float) -> Scores:
    """arXiv 2202.00666, section 4: the smallest set of at least that mass in which | -log p - H | is least."""
    shares = chances(scores)
    entropy = -math.fsum(p * math.log(p) for p in shares.values() if p)
    order = sorted(ranked(scores), key=lambda n: abs(-math.log(shares[n]) - entropy) if shares[n] else math.inf)
    kept, total = [], 0.0
    for n in order:
        kept.append(n)
        total += shares[n]
        if total >= mass:
            break
    return {n: scores[n] for n in kept}


def top_p(scores: Scores, mass: float) -> Scores:
    shares, kept, total = chances(scores), [], 0.0
    for n in ranked(scores):
        kept.append(n)
        total += shares[n]
        if total >= mass:
            break
    return {n: scores[n] for n in kept}


def min_p(scores: Scores, share: float) -> Scores:
    """arXiv 2407.01082: at least that share of the largest probability."""
    shares = chances(scores)
    return {n: score for n, score in scores.items() if shares[n] >= share * max(shares.values())}


def xtc(scores: Scores, threshold: float) -> Scores:
    """text-generation-webui's pull request 6335: where two or more reach the threshold, all of them go but the least likely."""
    shares = chances(scores)
    top = [n for n in ranked(scores) if shares[n] >= threshold]
    return {n: score for n, score in scores.items() if n not in top[:-1]}


def dynamic_temperature(scores: Scores, middle: float, reach: float, exponent: float) -> float:
    """koboldcpp's: from middle - reach to middle + reach, by the entropy's share of the largest possible one."""
    shares = chances(scores)
    if len(shares) == 1:
        return middle
    entropy = -math.fsum(p * math.log(p) for p in shares.values() if p)
    least = max(0.0, middle - reach)
    return least + (middle + reach - least) * (entropy / math.log(len(shares))) ** exponent


def mirostat_1(scores: Scores, mu: float, vocabulary: int, m: int = 100) -> Scores:
    """arXiv 2007.14966, algorithm 1: Zipf's exponent estimated from the m likeliest, and the k of it."""
    shares = chances(scores)
    p = [shares[n] for n in ranked(scores)][:m]
    t = [math.log((i + 2) / (i + 1)) for i in range(len(p) - 1)]
    b = [math.log(p[i] / p[i + 1]) for i in range(len(p) - 1)]
    s = sum(x * y for x, y in zip(t, b)) / sum(x * x for x in t)
    if s == 0:  # all alike
        return dict(scores)
    eps = s - 1
    k = (eps * 2**mu / (1 - vocabulary**-eps)) ** (1 / s)
    return top_k(scores, max(1, int(min(k, vocabulary))))


def mirostat_2(scores: Scores, mu: float) -> Scores:
    """The same paper, algorithm 2: what has a surprise of at most mu bits."""
    shares = chances(scores)
    return {n: score for n, score in scores.items() if -math.log2(shares[n]) <= mu} or top_k(scores, 1)


def distribution(
    logits: Sequence[float], said: Sequence[int], s: Any, breakers: Sequence[Any] = (), leaves_out: bool = True, mu: float | None = None
) -> list[tuple[int, float]]:
    """(id, probability), the likeliest first, after the whole chain. `s` has the settings; `leaves_out`: XTC's chance came up."""
    scores = dict(enumerate(map(float, logits)))
    scores = penalties(scores, said, s.repeat_penalty, s.presence_penalty, s.frequency_penalty, s.repeat_last_n)
    if s.dry_multiplier and s.dry_penalty_last_n:
        scores = dry(scores, said, s.dry_multiplier, s.dry_base, s.dry_allowed_length, s.dry_penalty_last_n, breakers)
    if s.temperature == 0:
        return [(ranked(scores)[0], 1.0)]
    if s.mirostat:
        warm = {n: score / s.temperature for n, score in scores.items()}
        mu = 2 * s.mirostat_tau if mu is None else mu
        kept = mirostat_1(warm, mu, len(logits)) if s.mirostat == 1 else mirostat_2(warm, mu)
        return [(n, chances(kept)[n]) for n in ranked(kept)]
    if s.top_n_sigma:
        scores = top_n_sigma(scores, s.top_n_sigma)
    scores = top_k(scores, s.top_k)
    if s.typical_p < 1:
        scores = typical(scores, s.typical_p)
    if s.top_p < 1:
        scores = top_p(scores, s.top_p)
    if s.min_p:
        scores = min_p(scores, s.min_p)
    if s.xtc_probability and leaves_out and s.xtc_threshold <= 0.5:
        scores = xtc(scores, s.xtc_threshold)
    temperature = s.temperature
    if s.dynatemp_range:
        temperature = dynamic_temperature(scores, s.temperature, s.dynatemp_range, s.dynatemp_exponent)
    if temperature == 0:
        return [(ranked(scores)[0], 1.0)]
    best = max(scores.values())
    shares = chances({n: (score - best) / temperature for n, score in scores.items()})
    return [(n, shares[n]) for n in ranked(scores)]
