"""Ids in, ids out: prefill in chunks of a few fixed sizes, decode one token a step, both as captured graphs with a symbolic position."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from tinygrad import Tensor, TinyJit, UOp

from app.models.llama.kv_cache import KVCache, LayerCache
from app.models.llama.transformer import Transformer
from ext.tinygrad import buffers
from ext.tinygrad.errors import TownhallError
from ext.tinygrad.graph import fast_replay, install
from ext.tinygrad.graph.fast import Replay

CHUNKS = (128, 32)  # tokens a prefill pass takes; every prompt is cut into these, the last piece padded
DECODE_RUN = 3  # a remainder this short is cheaper as decode steps than as a padded chunk


class ContextOverflow(TownhallError):
    """More tokens than the window holds."""

    def __init__(self, needed: int, capacity: int):
        super().__init__(f"{needed} tokens do not fit the context window of {capacity}; shorten the text or raise --max-context")
        self.needed, self.capacity = needed, capacity


@dataclass(frozen=True)
class PrefillStats:
    prompt_tokens: int
    cached_tokens: int  # of them already in the cache
    seconds: float


class Graph:
    """A forward pass over T tokens, captured at its first call and replayed with the ids, the position and the cache handed in."""

    def __init__(self, forward: Callable[[Tensor, list[LayerCache], UOp], Tensor | list[LayerCache]], T: int, capacity: int, device: str):
        self.T = T
        self.position = UOp.variable("start_pos", 0, capacity - 1)
        self.ids = buffers.upload(np.zeros(T, np.int32), device)
        self._replays: WeakKeyDictionary[KVCache, Replay] = WeakKeyDictionary()

        def run(ids: Tensor, start_pos: UOp, *tensors: Tensor) -> list[Tensor]:
            caches = [LayerCache(k, v) for k, v in zip(tensors[::2], tensors[1::2], strict=True)]
            result = forward(ids, caches, start_pos)
            outputs = [result] if isinstance(result, Tensor) else [t for cache in result for t in (cache.k, cache.v)]
            Tensor.realize(*outputs)
            return outputs

        self.jit = TinyJit(run)

    def __call__(self, ids: Sequence[int], start_pos: int, cache: KVCache) -> list[Tensor]:
        """Run over ids (padded to T) at start_pos; the caller keeps count of what is in the cache."""
        padded = np.zeros(self.T, np.int32)
        padded[: len(ids)] = ids
        buffers.write(self.ids, padded)
        if self.jit.captured is None:
            # every weight is realized by now, so nothing needs the eager first call that TinyJit makes by itself
            self.jit.cnt = 1
            return self.jit(self.ids, self.position.bind(start_pos), *cache.tensors)
        if (replay := self._replays.get(cache) or self._bind(cache)) is None:
            # TinyJit would look at each of the cache's tensors again at every call
            return self.jit.captured([t.uop.base for t in (self.ids, *cache.tensors)], {self.position.arg.name: start_pos})
        replay({self.position.arg.name: start_pos})
        return replay.result

    def _bind(self, cache: KVCache) -> Replay | None:
        """The native replay of this graph over one cache; None on devices that have no such runner."""
        inputs = [self.ids, *cache.tensors]
        known = next(iter(self._replays.values()), None)
        replay = known.bind(inputs) if known else fast_replay(self.jit, inputs)
        if replay is not None:
            self._replays[cache] = replay
        return replay


class Engine:
    """Runs one transformer over the caches of any number of conversations."""

    def __init__(self, model: Transformer, capacity: int, device: str):
        self.model, self.capacity, self.device = model, capacity, device
        if device == "CPU":
            install()

        def fill(ids: Tensor, caches: list[LayerCache], start_pos: UOp) -> list[LayerCache]:
            return model.hidden(ids, caches, start_pos)[1]

        self._decode = Graph(model.logits, 1, capacity, device)
        self._prefill = {T: Graph(fill, T, capacity, device) for T in CHUNKS}
        self._score = Graph(model.logits, min(CHUNKS), capacity, device)
        self._logits = np.empty(model.config.vocab_size, np.float32)

    def prefill(self, ids: list[int], cache: KVCache, on_progress: Callable[[int, int], None] | None = None) -> PrefillStats:
        """Make the cache hold exactly `ids`, keeping the prefix it already holds; `on_progress(done, total)` counts new tokens."""
        if len(ids) > self.capacity:
            raise ContextOverflow(len(ids), self.capacity)
        started, cached = time.perf_counter(), cache.common_prefix(ids)
        cache.truncate(cached)
        rest = ids[cached:]
        total = len(rest)
        while rest:
            if len(rest) <= DECODE_RUN:
                self._decode(rest[:1], len(cache.tokens), cache)
                taken = 1
            else:
                T = next((T for T in CHUNKS if T <= len(rest)), CHUNKS[-1])
                # a remainder that fills most of a larger chunk is one pass there instead of several here
                T = next((bigger for bigger in reversed(CHUNKS) if len(rest) <= bigger < 2 * len(rest)), T)
                taken = min(T, len(rest))
                self._prefill[T](rest[:taken], len(cache.tokens), cache)
            cache.tokens += rest[:taken]
            rest = rest[taken:]
            if on_progress:
                on_progress(total - len(rest), total)
        return PrefillStats(len(ids), cached, time.perf_counter() - started)

    def step(self, token: int, cache: KVCache) -> np.ndarray:
        """Decode: put one token into the cache and return the logits after it, float32 (V,); valid until the next step."""
        if len(cache.tokens) >= self.capacity:
            raise ContextOverflow(len(cache.tokens) + 1, self.capacity)
        (logits,) = self._decode([token], len(cache.tokens), cache)
        cache.tokens.append(token)
        return buffers.read(logits, self._logits)

    def score(self, ids: list[int], cache: KVCache) -> np.ndarray:
        """Teacher-forced logits after each of `ids`, float32 (len(ids), V); the cache ends up holding ids."""
        if len(ids) > self.capacity:
            raise ContextOverflow(len(ids), self.capacity)
        cache.truncate(0)
        T, rows = self._score.T, np.empty((len(ids), self.model.config.vocab_size), np.float32)
        chunk = np.empty((T, rows.shape[1]), np.float32)
        for start in range(0, len(ids), T):
            piece = ids[start : start + T]
            (logits,) = self._score(piece, start, cache)
            rows[start : start + len(piece)] = buffers.read(logits, chunk)[: len(piece)]
            cache.tokens += piece
        return rows
