"""Ids in, ids out: prefill in chunks of a few fixed sizes, decode one token a step, both as captured graphs with a symbolic position.

What a prefill leaves in a cache does not depend on where its chunks begin and end. A decode step's attention rounds otherwise, so that no
prompt is read by decode steps: an answer would depend on what was in the cache before.

`Generation` is one run of decoding: an iterator of ids that knows, at every moment, what it cost and why it ended.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable
from weakref import WeakSet

import numpy as np
from tinygrad import Device

from app.models.llama.forward import Pass, RowPass
from app.models.llama.kv_cache import AheadRow, KVCache
from app.models.llama.pass_sizes import LONGEST, chunk_for, chunks_of, pass_tokens_of, pieces_of
from app.models.llama.shared_passes import NextTokens, SharedPasses
from app.models.llama.speculation import Speculation
from app.models.llama.transformer import Transformer
from ext.tinygrad import buffers
from ext.tinygrad.errors import TownhallError
from ext.tinygrad.graph import install_on
from ext.tinygrad.graph.profile import KernelTime

ROW_COST = 0.17  # of a row more, in steps, until it has been measured
MEASURING = 0.1  # how far a pass moves what is known of its cost


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


class Engine:
    """Runs one transformer over the caches of any number of conversations."""

    def __init__(self, model: Transformer, capacity: int, device: str):
        self.model, self.capacity, self.device = model, capacity, device
        install_on(device)
        self.rows: int = model.rows  # of every cache; a pass writes as many as it takes tokens, padding included
        self.chunks = chunks_of(model.kernels, self.rows)
        self._decode = Pass(model, 1, capacity, device, with_logits=True)
        self.pieces = pieces_of(model.kernels, self.chunks, [w for block in model.blocks for w in block.matrices])
        span = getattr(model.kernels, "span_tokens", max(self.chunks))
        self._adapted_chunks = tuple(T for T in self.chunks if T <= span)  # what adapters change is multiplied in one span
        self._short_pieces = tuple(T for T in self.pieces if T <= span)  # the shorter a pass, the better the last one foretells its time
        self._pass_tokens = pass_tokens_of(model.kernels)
        self._prefill = {T: Pass(model, T, capacity, device, with_logits=False) for T in self.pieces}
        self._score = Pass(model, min(self.chunks), capacity, device, with_logits=True)
        self._logits = np.empty(model.config.vocab_size, np.float32)
        self._largest: np.ndarray | None = None
        self._seconds = 0.0  # that a token of the last prefill pass took
        self.patience: float | None = None  # seconds that a prefill pass may take, as far as the chunks allow; None: LONGEST
        self.sharing = SharedPasses(model, device)
        self._ahead: WeakSet[KVCache] = WeakSet()  # that the last one was for
        self._rows: RowPass | None = None  # that was the last
        self._row: int | None = None  # of it, which the last step took; None: it had a pass of its own
        self._row_seconds = 0.0
        self._pass_seconds: dict[int, float] = {}  # of a step (1), and of passes over rows, by size
        self.shared_seconds = 0.0  # of a pass that the last step had a part in, and that was run before it

    def prefill(self, ids: list[int], cache: KVCache, on_progress: Callable[[int, int], None] | None = None) -> PrefillStats:
        """Make the cache hold exactly `ids`, keeping the prefix it already holds; `on_progress(done, total)` counts new tokens."""
        if len(ids) > self.capacity:
            raise ContextOverflow(len(ids), self.capacity)
        started, cached = time.perf_counter(), cache.common_prefix(ids)
        if cached < len(cache.tokens):
            cache.truncate(cached)
        rest = ids[cached:]
        total = len(rest)
        while rest:
            T = self._chunk(len(rest), cache)
            taken = min(T, len(rest))
            self._timed(self._prefill[T], rest[:taken], cache)
            cache.extend(rest[:taken])
            rest = rest[taken:]
            if on_progress:
                on_progress(total - len(rest), total)
        return PrefillStats(len(ids), cached, time.perf_counter() - started)

    def _sizes(self, cache: KVCache) -> tuple[int, ...]:
        if cache.model is not None:  # adapters are float matrices, which have no smaller pieces
            return self._adapted_chunks
        if self.patience is None:
            return self.chunks
        return self.pieces if self.patience >= LONGEST else self._short_pieces

    def _chunk(self, tokens: int, cache: KVCache) -> int:
        return chunk_for(tokens, self._seconds, self._sizes(cache), self.rows - len(cache.tokens), self.patience, self._pass_tokens)

    def warm(self, cache: KVCache) -> None:
        """Have every pass prepared that reads a prompt into this cache, and the step; what it holds may be lost."""
        cache.truncate(0)
        for T in self._sizes(cache):
            self._prefill[T].bind(cache, 0)
        self._decode.bind(cache, 0)

    def pass_tokens(self, tokens: int, cache: KVCache) -> int:
        """Of so many that are to be read, how many the next prefill pass takes."""
        return min(tokens, self._chunk(tokens, cache))

    def bind(self, tokens: int, cache: KVCache) -> bool:
        """Settle the pass that would be next for a cache with so many tokens to be read, or else that of its steps; False where it was
        not settled before."""
        run = self._prefill[self._chunk(tokens, cache)]
        return run.bind(cache, len(cache.tokens)) and self._decode.bind(cache, len(cache.tokens))

    def _measure(self, rows: int, seconds: float) -> None:
        known = self._pass_seconds.get(rows, seconds)
        self._pass_seconds[rows] = known + MEASURING * (seconds - known)

    def row_cost(self, rows: int) -> float:
        """What a pass over so many rows costs, in steps of one token: as measured, or a guess until then."""
        size = self.sharing.size_for(rows)
        if (measured := self._pass_seconds.get(size)) and (step := self._pass_seconds.get(1)):
            return measured / step
        return 1 + ROW_COST * (size - 1)

    def ahead(self, wanted: Sequence[NextTokens]) -> None:
        """Compute the next steps of several conversations in one pass, at most `sharing.most_rows` tokens; `advance` finds them done.

        To the last bit what a step of its own would give. Nothing else may run over these caches in between, or they are computed again."""
        started = time.perf_counter()
        for cache in self._ahead:
            cache.ahead.clear()
        self._ahead = WeakSet(one.cache for one in wanted)
        self._rows, rows = self.sharing.run(wanted, self.capacity), 0
        for one in wanted:
            kept = one.tokens[: self.capacity - len(one.cache.tokens)]
            one.cache.ahead.extend(AheadRow(token, rows + i, i == 0) for i, token in enumerate(kept))
            rows += len(kept)
        Device[self.device].synchronize()
        self._row_seconds = time.perf_counter() - started
        self._measure(self._rows.T, self._row_seconds)

    def _timed(self, run: Pass, ids: list[int], cache: KVCache) -> None:
        """One pass, to its end; how long it took counts where it had not to be captured, or bound to the cache, first."""
        counts, started = run.prepared(cache), time.perf_counter()
        cache.ahead.clear()  # it goes over what stands there
        run(ids, len(cache.tokens), cache)
        # a driver would take every pass of a prompt at once: nothing could interrupt them, and memory that stages their ids would add up
        Device[self.device].synchronize()
        if counts:
            self._seconds = (time.perf_counter() - started) / run.T

    def step(self, token: int, cache: KVCache) -> np.ndarray:
        """Decode: put one token into the cache and return the logits after it, float32 (V,); valid until the next step."""
        self.advance(token, cache)
        return self.logits()

    def advance(self, token: int, cache: KVCache) -> None:
        """Decode: put one token into the cache; the logits after it stay on the device."""
        if len(cache.tokens) >= self.capacity:
            raise ContextOverflow(len(cache.tokens) + 1, self.capacity)
        if cache.ahead and cache.ahead[0].token == token:
            row = cache.ahead.popleft()
            self._row, self.shared_seconds = row.row, self._row_seconds if row.first else 0.0
        else:
            cache.ahead.clear()
            self._row, self.shared_seconds = None, 0.0
            counts, started = self._decode.prepared(cache), time.perf_counter()
            self._decode([token], len(cache.tokens), cache)
            if counts and self.sharing.most_rows:
                Device[self.device].synchronize()  # a driver returns as soon as the pass is enqueued; its logits are waited for anyway
                self._measure(1, time.perf_counter() - started)
        cache.extend([token])

    def logits(self) -> np.ndarray:
        """After the last step, float32 (V,); valid until the next one, and the caller's to change."""
        if self._row is not None and self._rows is not None:
            return self._rows.logits_of(self._row)
        return buffers.read(self._decode.logits, self._logits)

    def largest(self) -> tuple[list[int], list[float]] | None:
        """(ids, logits) of the few largest after the last step, falling; None where the device does not find them."""
        if self._row is not None or (found := self._decode.largest) is None:
            return None
        if self._largest is None:
            self._largest = np.empty(found.shape, np.int32)
        ids, bits = buffers.read(found, self._largest)
        there = ids >= 0
        return ids[there].tolist(), bits.view(np.float32)[there].tolist()

    def profile(self, T: int, start_pos: int, cache: KVCache, replays: int) -> list[KernelTime] | None:
        """Times of the kernels of a pass over T tokens (1, or one of `chunks`); what the cache holds from start_pos on is lost."""
        cache.truncate(start_pos)
        return (self._decode if T == 1 else self._prefill[T]).profile(start_pos, cache, replays)

    def score(self, ids: list[int], cache: KVCache) -> np.ndarray:
        """Teacher-forced logits after each of `ids`, float32 (len(ids), V); the cache ends up holding ids."""
        rows, done = np.empty((len(ids), self.model.config.vocab_size), np.float32), 0
        for logits in self.score_steps(ids, cache):
            rows[done : done + len(logits)] = logits
            done += len(logits)
        return rows

    def score_steps(self, ids: list[int], cache: KVCache) -> Iterator[np.ndarray]:
        """The same a pass at a time: float32 (tokens, V) after the next of `ids`, valid until the next pass."""
        if len(ids) > self.capacity:
            raise ContextOverflow(len(ids), self.capacity)
        cache.truncate(0)
        chunk = np.empty((self._score.T, self.model.config.vocab_size), np.float32)
        for start in range(0, len(ids), self._score.T):
            piece = ids[start : start + self._score.T]
            self._score(piece, start, cache)
            cache.extend(piece)
            yield buffers.read(self._score.logits, chunk)[: len(piece)]

    def hidden_steps(self, ids: list[int], cache: KVCache) -> Iterator[np.ndarray]:
        """The hidden states that the head would read after each of `ids`, a pass at a time: float32 (tokens, D), normed.

        The cache ends up holding ids.
        """
        if len(ids) > self.capacity:
            raise ContextOverflow(len(ids), self.capacity)
        cache.truncate(0)
        while rest := ids[len(cache.tokens) :]:
            run = self._prefill[chunk_for(len(rest), self._seconds, self.chunks, self.rows - len(cache.tokens), overhead=self._pass_tokens)]
            piece = rest[: run.T]
            self._timed(run, piece, cache)
            cache.extend(piece)
            rows = buffers.read(run.x, np.empty((run.T, self.model.config.dim), np.float32))
            yield self.model.norm.of_rows(rows[: len(piece)])


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
        speculation: Speculation | None = None,
    ):
        """`never`: ids that are not sampled, whatever their logits. With `speculation` a step may give several ids, one after another."""
        self._speculation = speculation
        self._draws_from_few = draw if isinstance(draw, DrawsFromFew) else None  # asked once: Python takes its time over a protocol
        self._engine, self._cache, self._prompt, self._draw = engine, cache, prompt, draw
        self._max_tokens, self._stop_ids = max_tokens, stop_ids
        self._never = never if never is not None and never.size else None
        self._never_ids = frozenset(self._never.tolist()) if self._never is not None else frozenset()
        self.finish_reason: Literal["stop", "length"] | None = None
        self.prompt_tokens, self.cached_tokens, self.tokens = len(prompt), 0, 0
        self.prefill_seconds = self.decode_seconds = 0.0
        self._history = list(prompt)
        self._forced: list[int] = []
        self._closed = False
        self.shared_seconds = 0.0  # of the last id's, those of a pass that was run before it was asked for

    def __next__(self) -> int:
        if self._closed or self.finish_reason:
            raise StopIteration
        if self.tokens >= self._max_tokens or len(self._history) >= self._cache.capacity + 1:
            return self._finish("length")
        if self.tokens == 0:
            self._prefill()
        started = time.perf_counter()
        guessed = self.upcoming if self._speculation else None
        if guessed and (len(guessed.tokens) == 1 or guessed.computed):
            guessed = None
        if guessed:
            self._engine.ahead([guessed])
        self._engine.advance(self._history[-1], self._cache)
        token = self._forced.pop(0) if self._forced else self._sample()
        if self._speculation and (guesses := self._cache.ahead):
            if self._engine.shared_seconds:
                self._speculation.began(len(guesses))
            self._speculation.outcome(guesses[0].token == token)
        self.shared_seconds = 0.0 if guessed else self._engine.shared_seconds  # that pass is in `started` to now
        seconds = time.perf_counter() - started + self.shared_seconds
        if self.tokens == 0:
            self.prefill_seconds += seconds  # the first id ends the prefill: it comes from the prompt's last token
        else:
            self.decode_seconds += seconds
        if token in self._stop_ids:
            return self._finish("stop")
        self.tokens += 1
        self._history.append(token)
        return token

    @property
    def upcoming(self) -> NextTokens | None:
        """What the next id needs computed, where `Engine.ahead` may do it: the prompt has been read, and an id will be drawn."""
        held, history = self._cache.tokens, self._history
        over = self._closed or self.finish_reason or self.tokens >= self._max_tokens or len(history) >= self._cache.capacity + 1
        if (
            over
            or not self._engine.sharing.shares(self._cache)
            or len(held) != len(history) - 1
            or (self.tokens == 0 and held != history[:-1])
        ):
            return None
        wanted = NextTokens(self._cache, history[-1:], self._cache.model or self._engine.model)
        if not self._speculation or self._forced or wanted.computed:
            return wanted
        most = min(self._engine.sharing.most_rows, self._max_tokens - self.tokens, self._cache.capacity - len(held)) - 1
        return replace(wanted, tokens=[history[-1], *self._speculation.guess(history, most)])

    def _prefill(self) -> None:
        stats = self._engine.prefill(self._prompt[:-1], self._cache)
        self.cached_tokens, self.prefill_seconds = stats.cached_tokens, stats.seconds

    def _sample(self) -> int:
        """The next id: from the few that the device ranked where those are enough, else from all logits."""
        if (few := self._draws_from_few) and (enough := few.enough(self._history)) and (found := self._engine.largest()):
            ids, scores = found
            if self._never_ids and not self._never_ids.isdisjoint(ids):
                kept = [(n, score) for n, score in zip(ids, scores, strict=True) if n not in self._never_ids]
                ids, scores = [n for n, _ in kept], [score for _, score in kept]
            if len(ids) >= enough:
                return few.draw_from(ids[:enough], scores[:enough], self._history)
        logits = self._engine.logits()
        if self._never is not None:
            logits[self._never] = -np.inf
        return self._draw(logits, self._history)

    def _finish(self, reason: Literal["stop", "length"]) -> int:
        self.finish_reason = reason
        raise StopIteration

    def force(self, ids: Sequence[int]) -> None:
        """Yield these next, whatever would have been sampled."""
        self._forced.extend(ids)

    def close(self) -> None:
        """Stop here; the cache keeps what was read."""
        self._closed = True
