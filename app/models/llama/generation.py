"""One run of decoding: an iterator of ids that knows, at every moment, what it cost and why it ended."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from app.models.llama.engine import Engine
from app.models.llama.kv_cache import KVCache

Draw = Callable[[np.ndarray, Sequence[int]], int]  # (float32 logits (V,), the ids before, oldest first) → the next id; a Sampler is one


@runtime_checkable
class DrawsFromFew(Protocol):
    """What draws an id and mostly needs only the likeliest, so that the other logits can stay on the device."""

    def enough(self, recent: Sequence[int]) -> int | None:
        """How many of the likeliest ids are sure to hold the next one; None: all logits are needed."""

    def draw_from(self, ids: list[int], scores: list[float], recent: Sequence[int]) -> int:
        """The next id, from as many of the likeliest, falling, as are enough; or from all of them."""


class Generation(Iterator[int]):
    """Yields sampled ids until a stop id (which it does not yield), max_tokens or the end of the window.

    The prompt is prefilled at the first `next`. An id enters the cache when the one after it is asked for, so closing early leaves a cache
    that holds just the prompt and what was used.
    """

    def __init__(
        self,
        engine: Engine,
        cache: KVCache,
        prompt: list[int],
        draw: Draw,
        max_tokens: int,
        stop_ids: frozenset[int],
        never: np.ndarray | None = None,
    ):
        """`never`: ids that are not sampled, whatever their logits."""
        self._engine, self._cache, self._prompt, self._draw = engine, cache, prompt, draw
        self._max_tokens, self._stop_ids = max_tokens, stop_ids
        self._never = never if never is not None and never.size else None
        self._never_ids = frozenset(self._never.tolist()) if self._never is not None else frozenset()
        self.finish_reason: Literal["stop", "length"] | None = None
        self.prompt_tokens, self.cached_tokens, self.tokens = len(prompt), 0, 0
        self.prefill_seconds = self.decode_seconds = 0.0
        self._history = list(prompt)
        self._closed = False

    def __next__(self) -> int:
        if self._closed or self.finish_reason:
            raise StopIteration
        if self.tokens >= self._max_tokens or len(self._history) >= self._cache.capacity + 1:
            return self._finish("length")
        if self.tokens == 0:
            self._prefill()
        started = time.perf_counter()
        self._engine.advance(self._history[-1], self._cache)
        token = self._sample()
        seconds = time.perf_counter() - started
        if self.tokens == 0:
            self.prefill_seconds += seconds  # the first id ends the prefill: it comes from the prompt's last token
        else:
            self.decode_seconds += seconds
        if token in self._stop_ids:
            return self._finish("stop")
        self.tokens += 1
        self._history.append(token)
        return token

    def _prefill(self) -> None:
        stats = self._engine.prefill(self._prompt[:-1], self._cache)
        self.cached_tokens, self.prefill_seconds = stats.cached_tokens, stats.seconds

    def _sample(self) -> int:
        """The next id: from the few that the device ranked where those are enough, else from all logits."""
        if isinstance(self._draw, DrawsFromFew) and (enough := self._draw.enough(self._history)) and (found := self._engine.largest()):
            ids, scores = found
            if self._never_ids and not self._never_ids.isdisjoint(ids):
                kept = [(n, score) for n, score in zip(ids, scores, strict=True) if n not in self._never_ids]
                ids, scores = [n for n, _ in kept], [score for _, score in kept]
            if len(ids) >= enough:
                return self._draw.draw_from(ids[:enough], scores[:enough], self._history)
        logits = self._engine.logits()
        if self._never is not None:
            logits[self._never] = -np.inf
        return self._draw(logits, self._history)

    def _finish(self, reason: Literal["stop", "length"]) -> int:
        self.finish_reason = reason
        raise StopIteration

    def close(self) -> None:
        """Stop here; the cache keeps what was read."""
        self._closed = True
