"""Texts across which no repetition is looked for, as ids.

A text can come about in several ways: within one token, or begun at the end of one and completed by those after it. koboldcpp, and
llama.cpp after it, look through the vocabulary for all of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol
from weakref import WeakKeyDictionary

from app.models.llama.sampling_params import SamplingParams

KEPT = 16  # lists of texts whose ids are kept for a vocabulary
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
    def by_last(self) -> Mapping[int, Sequence[tuple[int, ...]]]:
        """All of them by their last id."""
        found: dict[int, list[tuple[int, ...]]] = {}
        for ids in sorted(self.sequences):
            found.setdefault(ids[-1], []).append(ids)
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

    Looking through a vocabulary takes some 10 ms, so that a few results are kept.
    """
    kept, key = _kept.setdefault(tokenizer, {}), tuple(texts)
    if (found := kept.get(key)) is None:
        found = kept[key] = SequenceBreakers(frozenset(_sequences(tokenizer, key)) | {(n,) for n in tokenizer.stop_ids})
        for old in list(kept)[:-KEPT]:
            kept.pop(old, None)
    return found


def _sequences(tokenizer: Spelled, texts: Sequence[str]) -> Iterable[tuple[int, ...]]:
    whole = [text.encode("utf-8", "replace") for text in texts]
    # (the beginning of a text, which a token may end with, and what completes it)
    begun = [(text[:at].encode("utf-8", "replace"), text[at:]) for text in texts for at in range(1, len(text))]
    beginnings, rests = tuple(beginning for beginning, _ in begun), dict[str, tuple[int, ...]]()
    for n, spelling in tokenizer.spellings():
        if any(full in spelling for full in whole):
            yield (n,)
        if not spelling.endswith(beginnings):
            continue
        for beginning, rest in begun:
            if spelling.endswith(beginning):
                if rest not in rests:
                    rests[rest] = tuple(tokenizer.encode_pieces([(rest, False)], bos=False, continued=True)[:LONGEST])
                if rests[rest]:
                    yield (n, *rests[rest])
