"""Texts across which no repetition is looked for, as ids.

A text can come about in several ways: within one token, or begun at the end of one and completed by those after it. koboldcpp, and
llama.cpp after it, look through the vocabulary for all of them.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol
from weakref import WeakKeyDictionary

from app.models.llama.sampling_params import SamplingParams

KEPT = 4  # lists of texts whose ids are kept for a vocabulary
LONGEST = 20  # ids of one


@dataclass(frozen=True)
class SequenceBreakers:
    """Sequences of ids, each at least one long."""

    sequences: frozenset[tuple[int, ...]] = frozenset()

    @cached_property
    def single(self) -> frozenset[int]:
        """Those of one id."""
        return frozenset(ids[0] for ids in self.sequences if len(ids) == 1)

    @cached_property
    def lengths(self) -> Mapping[int, Collection[int]]:
        """How long they are, by their last id: there may be thousands, for any token may end with the beginning of a text."""
        found: dict[int, set[int]] = {}
        for ids in self.sequences:
            found.setdefault(ids[-1], set()).add(len(ids))
        return found


NO_BREAKERS = SequenceBreakers()


class Spelled(Protocol):
    """What is asked of a tokenizer."""

    stop_ids: frozenset[int]

    def spellings(self) -> Iterable[tuple[int, bytes]]:
        """Every id, and what it adds to a text."""
        ...

    def encode_pieces(self, pieces: Iterable[tuple[str, bool]], bos: bool = True, continued: bool = False) -> list[int]: ...


_kept: WeakKeyDictionary[Spelled, dict[tuple[str, ...], SequenceBreakers]] = WeakKeyDictionary()


def breakers_for(tokenizer: Spelled, sampling: SamplingParams) -> SequenceBreakers:
    """Those that the sampling asks for; none are looked for where DRY is off."""
    return breakers_of(tokenizer, sampling.dry_sequence_breakers) if sampling.dry_multiplier else NO_BREAKERS


def breakers_of(tokenizer: Spelled, texts: Sequence[str]) -> SequenceBreakers:
    """The ids of these texts, and the end tokens, each by itself: what one answer ends with is no beginning of the next one's.

    Looking through a vocabulary takes some 0.1 s, so that a few results are kept.
    """
    kept, key = _kept.setdefault(tokenizer, {}), tuple(texts)
    if (found := kept.get(key)) is None:
        found = kept[key] = SequenceBreakers(frozenset(_sequences(tokenizer, key)) | {(n,) for n in tokenizer.stop_ids})
        for old in list(kept)[:-KEPT]:
            kept.pop(old, None)
    return found


def _sequences(tokenizer: Spelled, texts: Sequence[str]) -> Iterable[tuple[int, ...]]:
    """What an id costs depends on its spelling's length, hardly on how many texts there are: a server's clients choose those."""
    whole = re.compile(b"|".join(re.escape(text.encode("utf-8", "replace")) for text in texts) or b"(?!)")  # without texts: nothing
    rests: dict[bytes, list[str]] = {}  # what completes a text of which a token may end with the beginning
    for text in texts:
        for at in range(1, len(text)):
            rests.setdefault(text[:at].encode("utf-8", "replace"), []).append(text[at:])
    longest, completed = max(map(len, rests), default=0), dict[str, tuple[int, ...]]()
    for n, spelling in tokenizer.spellings():
        if whole.search(spelling):
            yield (n,)
        for size in range(1, min(longest, len(spelling)) + 1):
            for rest in rests.get(spelling[-size:], ()):
                if rest not in completed:
                    completed[rest] = tuple(tokenizer.encode_pieces([(rest, False)], bos=False, continued=True)[:LONGEST])
                if completed[rest]:
                    yield (n, *completed[rest])
