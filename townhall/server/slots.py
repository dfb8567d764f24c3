"""Slots: KV caches of conversations between their requests, and the rule that says which one a prompt continues."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from townhall.answer_loop import common_prefix
from townhall.language_model import Cache

Lane = Literal["chat", "background"]
PrefixSource = Literal["conversation", "other", "persona"]  # where what a cache holds of a prompt came from
Adapters = tuple[tuple[Path, float], ...]  # laid over the model, each with its scale: a cache is filled by them, and by no others
WORTH = 16  # tokens: fewer are read again rather than copied


@dataclass(frozen=True)
class PersonaPrefix:
    """A persona as the model read it, in host memory."""

    tokens: tuple[int, ...]
    entries: Any
    adapters: Adapters = ()


@dataclass(frozen=True)
class PrefixLookup:
    """A prompt that was looked for in the caches: its tokens, how many of them were there, and where."""

    source: PrefixSource
    tokens: int
    cached: int


@dataclass
class Slot:
    """A cache and who has it."""

    cache: Cache
    lane: Lane
    busy: bool = False
    used: int = 0  # when, by the pool's own count
    adapters: Adapters = ()
    source: PrefixSource = "conversation"  # of what it held of the last prompt that it was taken for


@dataclass(frozen=True)
class SlotRequest:
    """A prompt that needs a cache.

    `before`: what it was before a context strategy took something out of its middle. `once`: nothing says that it will ever be continued.
    """

    ids: Sequence[int]
    pinned: int  # of them the persona's
    lane: Lane = "chat"
    before: Sequence[int] = ()
    once: bool = False
    adapters: Adapters = ()


class Slots:
    """Caches of one model, made when they are first needed; chats have `most`, the background lane one of its own.

    A prompt continues the slot that shares most with it, unless that slot would lose more than it gives: then the least recently used
    one takes the shared part over as a copy. Personas' heads are copied in the same way, and never leave. What is asked once (titles and
    tags of a client that does not say so) puts no conversation out of its slot while the background lane's is free.
    """

    def __init__(self, new_cache: Callable[[Adapters], Any], most: int):
        """`new_cache` makes one for a model with these adapters; what one holds is of no use to another."""
        self._new_cache, self.most = new_cache, most
        self._slots: list[Slot] = []
        self._heads: list[PersonaPrefix] = []
        self._count = 0
        self.evicted = 0  # conversations that lost their cache to another

    def lane_most(self, lane: Lane) -> int:
        """Slots that a lane may have."""
        return self.most if lane == "chat" else 1

    def pin(self, cache: Cache, adapters: Adapters = ()) -> None:
        """Keep what `cache` holds as a head that any conversation with these adapters may begin with."""
        self._heads.append(PersonaPrefix(tuple(cache.tokens), cache.entries(len(cache.tokens)), adapters))

    def take(self, wanted: SlotRequest) -> Slot | None:
        """The slot for a prompt, to be settled before it is used; None where all are busy."""
        free = [slot for slot in self._slots if slot.lane == wanted.lane and not slot.busy]
        slot = self._continued(free, wanted) or self._new(wanted.lane, wanted.adapters)
        if slot is None and free:
            slot = (self._aside(wanted.adapters) if wanted.once else None) or min(free, key=lambda slot: slot.used)
        if slot is None:
            return None
        if slot.adapters != wanted.adapters:
            self.evicted += len(slot.cache.tokens) > wanted.pinned
            slot.cache, slot.adapters = self._new_cache(wanted.adapters), wanted.adapters
        kept = _shared(slot.cache, wanted)
        if kept <= wanted.pinned and len(slot.cache.tokens) > wanted.pinned:
            self.evicted += 1
        self._count += 1
        slot.busy, slot.used = True, self._count
        return slot

    def settle(self, slot: Slot, wanted: SlotRequest) -> None:
        """Copy into a slot that was taken what other caches and heads have of the prompt: 2.5 ms for 200 tokens of the default model."""
        kept = _shared(slot.cache, wanted)
        slot.source = self._copy_better(slot, wanted, kept)

    def borrow(self, ids: Sequence[int]) -> Slot | None:
        """The free slot of the conversation that has come to `ids`, or nearly; None where another has taken it. To be given back as any."""
        for slot in self._slots:
            held = slot.cache.tokens
            # white space at an answer's end is in the cache and nowhere else, the marker after it nowhere in the cache
            if slot.lane == "chat" and not slot.busy and max(len(held), len(ids)) - common_prefix(held, ids) <= WORTH:
                slot.busy = True
                return slot
        return None

    def give_back(self, slot: Slot) -> None:
        """Done; the cache stays as it is."""
        self._count += 1
        slot.busy, slot.used = False, self._count

    def discard(self, slot: Slot) -> None:
        """Never use this cache again: a pass over it failed."""
        self._slots.remove(slot)

    @property
    def busy(self) -> int:
        return sum(slot.busy for slot in self._slots)

    def _continued(self, free: Iterable[Slot], wanted: SlotRequest) -> Slot | None:
        best, most = None, 0
        for slot in (slot for slot in free if slot.adapters == wanted.adapters):
            held, shared = slot.cache.tokens, _shared(slot.cache, wanted)
            if shared > most and len(held) - shared <= shared - wanted.pinned:
                best, most = slot, shared
        return best

    def _new(self, lane: Lane, adapters: Adapters) -> Slot | None:
        of_lane = sum(slot.lane == lane for slot in self._slots)
        if of_lane >= self.lane_most(lane):
            return None
        self._slots.append(slot := Slot(self._new_cache(adapters), lane, adapters=adapters))
        return slot

    def _aside(self, adapters: Adapters) -> Slot | None:
        """The background lane's slot, if it is free."""
        return next((slot for slot in self._slots if slot.lane == "background" and not slot.busy), None) or self._new(
            "background", adapters
        )

    def _copy_better(self, slot: Slot, wanted: SlotRequest, kept: int) -> PrefixSource:
        """Whatever other cache or head shares more with the prompt than `slot`: its part of it is copied. → where it came from"""
        best, most = None, kept + WORTH
        for other in self._slots:
            if other is not slot and other.adapters == slot.adapters and (shared := _held(other.cache, wanted.ids)) > most:
                best, most = other, shared
        heads = [head for head in self._heads if head.adapters == slot.adapters]
        head = max(heads, key=lambda head: common_prefix(head.tokens, wanted.ids), default=None)
        if head and common_prefix(head.tokens, wanted.ids) >= most:
            slot.cache.fill(head.entries)
            return "persona"
        if best:
            slot.cache.fill(best.cache.entries(most))
            return "other"
        return "persona" if kept <= wanted.pinned else "conversation"


def _held(cache: Cache, ids: Sequence[int]) -> int:
    """How many of these ids a cache can go on from."""
    return cache.reachable(common_prefix(cache.tokens, ids))


def _shared(cache: Cache, wanted: SlotRequest) -> int:
    """What a prompt has in common with a cache, before or after a context strategy took something out."""
    return max(_held(cache, wanted.ids), common_prefix(cache.tokens, wanted.before))
