"""Prefill a pass at a time, so that the caller can do something else between two passes."""

from collections.abc import Generator, Sequence
from typing import Any

from townhall.language_model import LanguageModel

CHUNK = 128  # tokens: the engine's largest pass


def read(llama: LanguageModel, ids: Sequence[int], cache: Any) -> Generator[None, None, None]:
    """Prefill all of `ids` but the last, which the first step of decoding takes; yields after each pass."""
    done = cached_prefix(cache.tokens, ids)
    while done < len(ids) - 1:
        done = min(done + CHUNK, len(ids) - 1)
        llama.prefill(list(ids[:done]), cache)
        yield


def cached_prefix(held: Sequence[int], ids: Sequence[int]) -> int:
    """How many of a prompt's ids a cache that holds these need not read; the last one is decoded in any case."""
    return min(common_prefix(held, ids), len(ids) - 1)


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many ids the two begin with in common."""
    n = min(len(a), len(b))
    if list(a[:n]) == list(b[:n]):
        return n
    return next(at for at in range(n) if a[at] != b[at])
