"""Lorebooks as a source of prompts: entries that fire in every turn are pinned, the others stand near the end of the prompt."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from townhall.characters.lore_state import LoreState
from townhall.characters.lorebook import Lorebook, LoreEntry, Place, Spot
from townhall.characters.lorebook_scan import FiredEntry, LoreScan, LoreScanner, ScanSettings
from townhall.characters.macros import Macros
from townhall.context.source import SEAM, SourceItem, SourcePlace, SourceRequest, SourceRole, SourceSpot, SourceText, SourceTurn, bracketed

NOTE_DEPTH = 4  # where SillyTavern has the author's note, unless a chat says otherwise
SHARE = 8  # of a window, for a book without a budget of its own
MOST_SHARE = 4  # of a window, for all books together
SEAMS = 3 * SEAM  # entries go to a few places at most
_BEFORE = (Spot.BEFORE_CHARACTER,)
_BY_NOTE = (Spot.BEFORE_NOTE, Spot.AFTER_NOTE)
_REMEMBERING = {"keep_activate_after_match", "dont_activate_after_match"}


class LorebookSource:
    """The books of a conversation, earlier ones first where the budget is short.

    A position beside the character is kept for entries that fire always, with the same text. One that comes and goes would have everything
    behind it read again, so it stands in front of the newest message's words instead.
    """

    name = "lorebook"

    def __init__(self, books: Sequence[Lorebook], char: str, user: str = "User", greeting: int = 0):
        """`greeting`: with which one the chat began, counted from 0."""
        self._books, self._char = tuple(books), char
        self._scanner = LoreScanner(books, Macros(char, user), ScanSettings(greeting=greeting))
        entries = [entry for book in self._books for entry in book.entries if entry.enabled]
        self.remembers = any(entry.sticky or entry.cooldown or _REMEMBERING & set(entry.decorators or ()) for entry in entries)
        self._entries = len(entries)
        self._pinned: frozenset[str] = frozenset()  # ids of entries in the head
        self._pinned_tokens = 0

    def budget(self, capacity: int, count: Callable[[str], int]) -> int:
        """The books' own, within a quarter of the window; an eighth for one that has none; nothing where all is pinned."""
        if len(self._pinned) == self._entries:
            return 0
        wishes = [capacity // SHARE if book.token_budget is None else book.token_budget for book in self._books]
        return min(capacity // MOST_SHARE, sum(wishes))

    def head(self, count: Callable[[str], int]) -> Sequence[SourceText]:
        """Entries that fire in every turn with the same text, beside the character."""
        fired = [one for one in self._scan((), None, LoreState(), count, 0).fired if _always(one)]
        self._pinned, self._pinned_tokens = frozenset(one.entry.id for one in fired), sum(one.tokens for one in fired)
        texts = []
        for spot, before in ((SourceSpot.BEFORE_CHARACTER, True), (SourceSpot.AFTER_CHARACTER, False)):
            if there := [one for one in fired if (one.entry.place.spot in _BEFORE) == before]:
                texts.append(SourceText(self.name, SourcePlace(spot), "\n".join(one.text for one in there), tuple(map(_item, there))))
        return texts

    def turn(self, request: SourceRequest) -> SourceTurn:
        """What fires for the conversation, without what is pinned."""
        try:
            state = LoreState.from_json(request.state) if request.state else LoreState()
        except (KeyError, TypeError, ValueError, AttributeError):  # a log that a person has changed
            state = LoreState()
        scan = self._scan(request.messages, request.budget, state, request.count, request.seed)
        beside: list[FiredEntry] = []
        texts: list[SourceText] = []
        for lore in scan.texts():
            fired = tuple(one for one in lore.entries if one.entry.id not in self._pinned)
            place = lore.place
            if not fired or place.spot is Spot.OUTLET:
                continue
            if place.spot is not Spot.AT_DEPTH and place.spot not in _BY_NOTE:
                beside += fired
                continue
            depth = NOTE_DEPTH if place.spot in _BY_NOTE else place.depth
            at = SourcePlace(SourceSpot.AT_DEPTH, depth, place.from_start)
            texts.append(SourceText(self.name, at, self._spoken("\n".join(one.text for one in fired), place), tuple(map(_item, fired))))
        if beside:
            beside.sort(key=lambda one: one.entry.place.spot not in _BEFORE)
            text = bracketed("\n".join(one.text for one in beside))
            texts.append(SourceText(self.name, SourcePlace(SourceSpot.NEWEST), text, tuple(map(_item, beside))))
        passed_over = tuple(SourceItem(_label(entry), why) for entry, why in scan.passed_over)
        notes = tuple(SourceItem(self.name, note) for note in scan.notes)
        return SourceTurn(tuple(texts), self._remembered(scan.state) if self.remembers else {}, (*passed_over, *notes))

    def _scan(
        self,
        messages: Sequence[tuple[SourceRole, str]],
        budget: int | None,
        state: LoreState,
        count: Callable[[str], int],
        seed: int,
    ) -> LoreScan:
        """`budget` is for what is not pinned, and for the seams beside its texts."""
        room = None if budget is None else max(0, budget - SEAMS) + self._pinned_tokens
        self._scanner.settings = replace(self._scanner.settings, budget=room)
        return self._scanner.scan(messages, state, count, random.Random(f"{seed}/{len(messages)}"))

    def _spoken(self, text: str, place: Place) -> str:
        """By its role: a remark, the user's words, or the character's."""
        return bracketed(text) if place.role == "system" else text if place.role == "user" else f"{self._char}: {text}"

    def _remembered(self, state: LoreState) -> dict[str, object]:
        asking = {entry.id for book in self._books for entry in book.entries if _REMEMBERING & set(entry.decorators or ())}
        return replace(state, fired={id: at for id, at in state.fired.items() if id in asking}).to_json()


def _always(fired: FiredEntry) -> bool:
    return fired.stable and bool(fired.text) and fired.entry.place.spot not in (*_BY_NOTE, Spot.OUTLET)


def _item(fired: FiredEntry) -> SourceItem:
    return SourceItem(_label(fired.entry), fired.why, fired.tokens, {"book": fired.entry.book})


def _label(entry: LoreEntry) -> str:
    return f"{entry.book}: {entry.title or next(iter(entry.keys), '') or entry.uid}"
