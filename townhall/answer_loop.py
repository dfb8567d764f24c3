"""The one loop that prefills a prompt and samples an answer: conversations, the server's jobs, summaries and completions run it.

Prefill goes a pass at a time, so that the caller can do something else between two passes.
"""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar

from townhall.language_model import Cache, LanguageModel, TokenStream


def read(llama: LanguageModel, ids: Sequence[int], cache: Any) -> Generator[None, None, None]:
    """Prefill all of `ids` but the last, which the first step of decoding takes; yields after each pass."""
    done = cached_prefix(cache, ids)
    while done < len(ids) - 1:
        left = len(ids) - 1 - done
        done += llama.pass_tokens(left, cache)
        llama.prefill(list(ids[:done]), cache)
        yield


def cached_prefix(cache: Cache, ids: Sequence[int]) -> int:
    """How many of a prompt's ids need not be read into a cache; the last one is decoded in any case."""
    return cache.reachable(min(common_prefix(cache.tokens, ids), len(ids) - 1))


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many ids the two begin with in common."""
    n = min(len(a), len(b))
    if list(a[:n]) == list(b[:n]):
        return n
    return next(at for at in range(n) if a[at] != b[at])


T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")


class Sink(Protocol[T_co]):
    """Takes sampled ids; `push` and `flush` give what may be shown, `stopped` is true after a stop string.

    `interject` gives ids that must come next, whatever the model would say.
    """

    @property
    def stopped(self) -> bool: ...
    def push(self, token: int, /) -> T_co: ...
    def flush(self) -> T_co: ...
    def interject(self) -> Sequence[int]: ...


class AnswerLoop(Generic[T]):
    """Iterate it: a step after each pass over the model, None while the prompt is read, then what the sink gives.

    Between two steps the caller may do something else, or close the iterator: the cache keeps what was read. `generate` begins to sample
    from `ids`; it is called at once, and runs when the prompt has been read.
    """

    def __init__(self, llama: LanguageModel, ids: Sequence[int], cache: Any, generate: Callable[[], TokenStream], sink: Sink[T]):
        self.generation = generate()
        self.cached = cached_prefix(cache, ids)  # tokens of the prompt that need not be read
        self.finish: str | None = None  # "stop", "length" …; None until the answer is complete
        self.reading = True
        self.read_seconds = 0.0
        self.push_seconds = 0.0  # sampling and decoding to text, without what the caller did between
        self.tokens = 0  # sampled
        self._llama, self._ids, self._cache, self._sink = llama, ids, cache, sink

    @property
    def upcoming(self) -> Any:
        """What the next step needs computed, where a pass that others share can do it; else None."""
        return None if self.finish else self.generation.upcoming

    def __iter__(self) -> Iterator[T | None]:
        return self.steps()

    def steps(self) -> Generator[T | None, None, None]:
        """The loop; closing it ends the generation."""
        try:
            started = time.perf_counter()
            for _ in read(self._llama, self._ids, self._cache):
                self.read_seconds = time.perf_counter() - started
                yield None
            if (upcoming := self.generation.upcoming) is not None and not upcoming.computed:
                yield None  # the first id's pass can be shared, too
            self.reading = False
            started = time.perf_counter()
            for token in self.generation:
                self.tokens += 1
                shown = self._sink.push(token)
                self.push_seconds += time.perf_counter() - started + self.generation.shared_seconds
                yield shown
                if self._sink.stopped:
                    self.finish = "stop"
                    return
                if forced := self._sink.interject():
                    self.generation.force(forced)
                started = time.perf_counter()
            self.finish = self.generation.finish_reason or "stop"
            yield self._sink.flush()
        finally:
            self.generation.close()
