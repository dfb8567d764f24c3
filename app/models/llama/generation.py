"""One run of decoding: an iterator of ids that knows, at every moment, what it cost and why it ended."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np

from app.models.llama.engine import Engine
from app.models.llama.kv_cache import KVCache

Draw = Callable[[np.ndarray, Sequence[int]], int]  # (float32 logits (V,), the ids before, oldest first) → the next id; a Sampler is one


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
        logits = self._engine.step(self._history[-1], self._cache)
        if self._never is not None:
            logits[self._never] = -np.inf
        token = self._draw(logits, self._history)
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

    def _finish(self, reason: Literal["stop", "length"]) -> int:
        self.finish_reason = reason
        raise StopIteration

    def close(self) -> None:
        """Stop here; the cache keeps what was read."""
        self._closed = True
