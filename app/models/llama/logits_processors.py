"""Logit bias, penalties and grammar mask, applied before sampling; log-probabilities of what was sampled."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from app.models.llama.sampler import Sampler
from app.models.llama.sampling_params import SamplingParams
from app.models.llama.sequence_breakers import NO_BREAKERS, SequenceBreakers


class Grammar(Protocol):
    """Knows what may come next."""

    def allowed(self) -> np.ndarray:
        """bool (V,) or shorter: ids beyond its end are not allowed."""
        ...

    def take(self, token: int, /) -> None:
        """This one came."""
        ...


@dataclass(frozen=True)
class LogitsProcessors:
    """How logits are changed, in the terms of OpenAI's API; penalties count what was sampled, not the prompt."""

    bias: Mapping[int, float] = field(default_factory=dict)  # added to an id's logit
    frequency_penalty: float = 0.0  # taken off for each time that an id was sampled
    presence_penalty: float = 0.0  # taken off once it was


@dataclass(frozen=True)
class TokenLogprob:
    """An id and its log-probability under the bent logits at temperature 1; `top` are the likeliest, falling."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class SamplerChain:
    """Draws as `Sampler` does, from logits that were bent first; `likely` has an entry for each id where `top` is not None."""

    def __init__(
        self,
        sampling: SamplingParams,
        logits_processors: LogitsProcessors,
        prompt_tokens: int,
        grammar: Grammar | None = None,
        top: int | None = None,
        breakers: SequenceBreakers = NO_BREAKERS,
    ) -> None:
        """`breakers` are those of DRY, for the vocabulary."""
        self._sampler, self._logits_processors, self._prompt_tokens = Sampler(sampling, breakers), logits_processors, prompt_tokens
        self._grammar, self._top = grammar, top
        self._biased = np.array(sorted(logits_processors.bias), np.int64)
        self._bias = np.array([logits_processors.bias[n] for n in sorted(logits_processors.bias)], np.float32)
        self._said: Counter[int] = Counter()
        self._counted = self._taken = prompt_tokens
        self.logprobs: list[TokenLogprob] = []

    @property
    def seed(self) -> int:
        """What repeats the text."""
        return self._sampler.seed

    def __call__(self, logits: np.ndarray, recent: Sequence[int]) -> int:
        """The next id; `logits` is float32 (V,) and left as it is."""
        if self._grammar:
            for forced in recent[self._taken :]:  # ids that came without being drawn
                self._grammar.take(forced)
            self._taken = len(recent) + 1
        logits = self._process(logits, recent)
        token = self._sampler(logits, recent)
        if self._grammar:
            self._grammar.take(token)
        if self._top is not None:
            self.logprobs.append(logprobs(logits, token, self._top))
        return token

    def enough(self, recent: Sequence[int]) -> int | None:
        """As the sampler's; None where logits are bent, or looked at."""
        processed = self._logits_processors != LogitsProcessors() or self._grammar or self._top is not None
        return None if processed else self._sampler.enough(recent)

    def draw_from(self, ids: list[int], scores: list[float], recent: Sequence[int]) -> int:
        """As the sampler's."""
        return self._sampler.draw_from(ids, scores, recent)

    def _process(self, logits: np.ndarray, recent: Sequence[int]) -> np.ndarray:
        logits_processors = self._logits_processors
        if logits_processors == LogitsProcessors() and not self._grammar:
            return logits
        logits = logits.copy()
        logits[self._biased] += self._bias
        if logits_processors.frequency_penalty or logits_processors.presence_penalty:
            self._said.update(recent[self._counted :])
            self._counted = len(recent)
            for token, times in self._said.items():
                logits[token] -= times * logits_processors.frequency_penalty + logits_processors.presence_penalty
        if self._grammar:
            allowed = self._grammar.allowed()
            logits[: len(allowed)][~allowed[: len(logits)]] = -np.inf
            logits[len(allowed) :] = -np.inf
        return logits


def logprobs(logits: np.ndarray, token: int, top: int) -> TokenLogprob:
    """The log-probability of `token`, and the `top` largest; what cannot come at all is not among them."""
    largest = float(logits.max())
    total = largest + float(np.log(np.sum(np.exp(logits - np.float32(largest)), dtype=np.float64)))
    ids = np.argpartition(logits, -top)[-top:] if 0 < top < logits.size else np.arange(logits.size if top else 0)
    ids = ids[np.argsort(-logits[ids], kind="stable")]
    best = tuple((int(n), float(logits[n]) - total) for n in ids if logits[n] > -np.inf)
    return TokenLogprob(token, float(logits[token]) - total, best)
