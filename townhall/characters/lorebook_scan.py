"""Which entries of lorebooks fire, why, and where their texts go: a function of books, messages, what is remembered, and a seed.

The order of checks is that of SillyTavern's `checkWorldInfo`; decorators are those of Character Card V3. Nothing is kept between scans but
the `LoreState` that a scan returns.
"""

import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from townhall.characters import lore_groups
from townhall.characters.key_patterns import Clock, Key, plain_key, regex_key
from townhall.characters.lore_state import LoreState, TimedEffect
from townhall.characters.lore_text import ScanText, ScanTexts
from townhall.characters.lorebook import Logic, Lorebook, LoreEntry, Place, Role, Spot
from townhall.characters.macros import Macros

MAX_SAID = 400_000  # characters that the entries of one scan may have together
_CHANGING = re.compile(r"\{\{\s*(random|roll|date|time|weekday|iso)", re.IGNORECASE)


@dataclass(frozen=True)
class ScanSettings:
    """What counts where a book or an entry does not say."""

    scan_depth: int = 4  # messages
    budget: int | None = None  # tokens of all books together; None is no limit
    recursive: bool = False
    max_passes: int = 8
    case_sensitive: bool = False
    whole_words: bool = False
    group_scoring: bool = False
    greeting: int = 0  # which greeting the chat began with, for @@is_greeting
    window_full: bool = False  # for @@ignore_on_max_context


@dataclass(frozen=True)
class FiredEntry:
    """An entry that goes into the prompt. `stable`: it will in every turn, with this text, so it may stand in a cached head."""

    entry: LoreEntry
    text: str
    why: str
    tokens: int
    stable: bool


@dataclass(frozen=True)
class LoreText:
    """What goes to one place, entries of lower order first, a line break between them."""

    place: Place
    text: str
    entries: tuple[FiredEntry, ...]


@dataclass(frozen=True)
class LoreScan:
    """`passed_over` are entries whose keys were found and that do not fire, with the reason; `notes` are about keys."""

    fired: tuple[FiredEntry, ...]
    passed_over: tuple[tuple[LoreEntry, str], ...]
    state: LoreState
    notes: tuple[str, ...]

    @property
    def tokens(self) -> int:
        return sum(entry.tokens for entry in self.fired)

    def texts(self) -> list[LoreText]:
        """What fired, by place; what has no text goes nowhere."""
        places: dict[Place, list[FiredEntry]] = {}
        for fired in self.fired:
            if fired.text:
                places.setdefault(fired.entry.place, []).append(fired)
        return [LoreText(place, "\n".join(one.text for one in group), tuple(group)) for place, group in places.items()]


@dataclass(frozen=True, slots=True)
class _Prepared:
    entry: LoreEntry
    keys: tuple[Key, ...]
    secondary: tuple[Key, ...]
    also: tuple[tuple[Key, ...], ...]  # of each one must be found
    without: tuple[Key, ...]
    depth: int
    recursive: bool
    by_keys: bool  # nothing but a key makes it fire
    said: Mapping[str, object]


@dataclass
class _Run:
    """One scan under way."""

    texts: ScanTexts
    clock: Clock
    messages: int
    replies: int
    state: LoreState
    sticky: set[str] = field(default_factory=set)
    silent: set[str] = field(default_factory=set)
    level: int = 0  # of delayed recursion
    number: int = 0  # of the pass, from 0
    passed_over: dict[str, str] = field(default_factory=dict)
    gave_way: dict[str, str] = field(default_factory=dict)  # to others of a group


class LoreScanner:
    """Books made ready: keys are folded and their macros replaced once. Earlier books come first when the budget is short."""

    def __init__(self, books: Sequence[Lorebook], macros: Macros | None = None, settings: ScanSettings | None = None):
        self.settings, self._macros = settings or ScanSettings(), macros or Macros("Character")
        names = [book.name for book in books]
        books = [_named(book, f"{book.name}#{at}") if book.name in names[:at] else book for at, book in enumerate(books)]
        self._budgets = {book.name: book.token_budget for book in books}
        self._prepared = [self._prepare(entry, book) for book in books for entry in sorted(book.entries, key=_precedence) if entry.enabled]
        self._entries = {prepared.entry.id: prepared.entry for prepared in self._prepared}

    def scan(
        self, messages: Sequence[tuple[Role, str]], state: LoreState, count_tokens: Callable[[str], int], rng: random.Random
    ) -> LoreScan:
        """What fires for the conversation `messages`, all of it, oldest first. The same arguments give the same scan."""
        run = _Run(
            ScanTexts([text for _, text in messages]), Clock(), len(messages), sum(role == "assistant" for role, _ in messages), state
        )
        run.state = self._timed(state.before(run.messages), run)
        macros = replace(self._macros, rng=rng)
        fired: list[FiredEntry] = []
        spent: dict[str, int] = {}
        room = MAX_SAID
        full: set[str] = set()  # books whose budget is used up; "" for all
        levels = sorted({p.entry.delay_until_recursion for p in self._prepared if p.entry.delay_until_recursion and p.recursive})
        run.level = levels.pop(0) if levels else 0
        while run.number < self.settings.max_passes:
            done = {one.entry.id for one in fired} | run.passed_over.keys()
            found = [(p, why) for p in self._prepared if p.entry.id not in done and (why := self._trigger(p, run))]
            found.sort(key=lambda one: one[0].entry.id not in run.sticky)
            # who gives way in one pass may fire in a later one, if the winner was drawn against
            gave_way = self._group_losers([p for p, _ in found], [one.entry for one in fired], run, rng)
            run.gave_way |= gave_way
            new = []
            for prepared, why in found:
                entry = prepared.entry
                if entry.id in gave_way:
                    continue
                if entry.probability < 100 and entry.id not in run.sticky and rng.random() * 100 >= entry.probability:
                    run.passed_over[entry.id] = f"drawn against: its probability is {entry.probability:g} %"
                    continue
                room -= len(entry.content)
                if room < 0:
                    run.passed_over[entry.id] = f"what fires has {MAX_SAID:,} characters already"
                    continue
                text = macros.expand(entry.content).strip()
                tokens = count_tokens(f"{text}\n") if text else 0
                if why_not := self._over_budget(entry, tokens, spent, full):
                    run.passed_over[entry.id] = why_not
                    continue
                spent[entry.book] = spent.get(entry.book, 0) + tokens
                new.append(FiredEntry(entry, text, why, tokens, _stable(prepared)))
            fired += new
            said = [_said(one, macros) for one in new if not one.entry.prevent_recursion]
            run.texts.say(said)
            run.number += 1
            if not (said and not full and any(p.recursive for p in self._prepared)):
                if not levels:
                    break
                run.level = levels.pop(0)
        fired.sort(key=lambda one: one.entry.order)
        ids = {one.entry.id for one in fired}
        passed_over = {id: why for id, why in {**run.gave_way, **run.passed_over}.items() if id not in ids}
        passed = tuple((self._entries[id], why) for id, why in passed_over.items())
        notes = tuple(f"key {key!r} {fault}" for key, fault in run.clock.faults.items())
        return LoreScan(tuple(fired), passed, self._remembered(run, fired), notes)

    def _prepare(self, entry: LoreEntry, book: Lorebook) -> _Prepared:
        case = self.settings.case_sensitive if entry.case_sensitive is None else entry.case_sensitive
        whole = self.settings.whole_words if entry.whole_words is None else entry.whole_words

        def keys(texts: Iterable[str]) -> tuple[Key, ...]:
            expanded = (self._macros.expand(text).strip() if "{{" in text or "<" in text else text for text in texts)
            return tuple(regex_key(text, entry.bare_regex, case) or plain_key(text, case, whole) for text in expanded if text)

        said = entry.decorators or {}
        also = cast(Iterable[list[str]], said.get("additional_keys", ()))
        without = cast(Iterable[list[str]], () if entry.bare_regex else said.get("exclude_keys", ()))
        depths = (entry.scan_depth, book.scan_depth, self.settings.scan_depth)
        always = entry.constant or "activate" in said or "keep_activate_after_match" in said
        return _Prepared(
            entry=entry,
            keys=keys(entry.keys),
            secondary=keys(entry.secondary_keys),
            also=tuple(keys(group) for group in also),
            without=tuple(key for group in without for key in keys(group)),
            depth=next(depth for depth in depths if depth is not None),
            recursive=self.settings.recursive if book.recursive is None else book.recursive,
            by_keys=not always,
            said=said,
        )

    def _trigger(self, prepared: _Prepared, run: _Run) -> str:
        """Why the entry fires; "" where it does not. The keys come first where only they count, for that is nearly all there is to do."""
        entry, stays = prepared.entry, prepared.entry.id in run.sticky
        text = run.texts.get(prepared.depth, prepared.recursive)
        key = None
        if prepared.by_keys and not stays:
            if (key := text.first(prepared.keys, run.clock)) is None:
                return ""
        early = entry.delay > run.messages
        if early or (entry.id in run.silent and not stays):
            if key:
                run.passed_over[entry.id] = f"waits for {entry.delay} messages" if early else "silent for a while after it fired (cooldown)"
            return ""
        if not stays and not self._in_this_pass(prepared, run):
            return ""
        if "activate" in prepared.said:
            return "@@activate"
        if not self._conditions(prepared, text, run):
            return ""
        if entry.id in run.state.fired and "keep_activate_after_match" in prepared.said:
            return "@@keep_activate_after_match"
        if entry.constant:
            return "constant"
        if stays:
            return f"stays until there are {run.state.sticky[entry.id].end} messages"
        if (key := key or text.first(prepared.keys, run.clock)) is None:
            return ""
        if (secondary := self._secondary(prepared, text, run.clock)) is None:
            return ""
        return f"key {key.shown!r}{secondary}" + (f", in pass {run.number + 1} with what entries say" if run.number else "")

    def _in_this_pass(self, prepared: _Prepared, run: _Run) -> bool:
        entry = prepared.entry
        if run.number == 0:
            return not entry.delay_until_recursion
        return prepared.recursive and not entry.exclude_recursion and entry.delay_until_recursion <= run.level

    def _conditions(self, prepared: _Prepared, text: ScanText, run: _Run) -> bool:
        """What decorators ask for beside the keys."""
        said = prepared.said
        if not said:
            return True
        before = prepared.entry.id in run.state.fired
        every = cast(int, said.get("activate_only_every", 0))
        if "dont_activate" in said or (before and "dont_activate_after_match" in said):
            return False
        if run.replies < cast(int, said.get("activate_only_after", 0)) or (every and run.replies % every):
            return False
        if said.get("is_greeting", self.settings.greeting) != self.settings.greeting:
            return False
        if self.settings.window_full and "ignore_on_max_context" in said:
            return False
        if any(text.first(group, run.clock) is None for group in prepared.also):
            return False
        return text.first(prepared.without, run.clock) is None

    def _secondary(self, prepared: _Prepared, text: ScanText, clock: Clock) -> str | None:
        """How the secondary keys let it fire; None where they do not."""
        if not prepared.secondary:
            return ""
        logic = prepared.entry.logic
        found = [key for key in prepared.secondary if text.has(key, clock)]
        absent = [key for key in prepared.secondary if key not in found]
        if logic is Logic.AND_ANY and found or logic is Logic.AND_ALL and not absent:
            return f" with {', '.join(repr(key.shown) for key in found)}"
        if logic is Logic.NOT_ANY and not found or logic is Logic.NOT_ALL and absent:
            return f" without {', '.join(repr(key.shown) for key in absent)}"
        return None

    def _group_losers(self, found: list[_Prepared], fired: list[LoreEntry], run: _Run, rng: random.Random) -> dict[str, str]:
        by_id = {prepared.entry.id: prepared for prepared in found}

        def score(entry: LoreEntry) -> int:
            prepared = by_id[entry.id]
            text = run.texts.get(prepared.depth, prepared.recursive)
            primary, secondary = (sum(text.has(key, run.clock) for key in keys) for keys in (prepared.keys, prepared.secondary))
            counts = entry.logic is Logic.AND_ANY or entry.logic is Logic.AND_ALL and secondary == len(prepared.secondary)
            return primary + (secondary if counts else 0) if prepared.keys else 0

        entries = [prepared.entry for prepared in found if prepared.entry.groups]
        return lore_groups.losers(entries, fired, run.sticky, score, self.settings.group_scoring, rng) if entries else {}

    def _over_budget(self, entry: LoreEntry, tokens: int, spent: dict[str, int], full: set[str]) -> str:
        """Why the entry does not fit; "" where it does. Once one does not, none of lower precedence is tried."""
        if entry.ignore_budget:
            return ""
        own, all_ = self._budgets.get(entry.book), self.settings.budget
        if own is not None and (entry.book in full or spent.get(entry.book, 0) + tokens > own):
            full.add(entry.book)
            return f"over the book's budget of {own} tokens"
        if all_ is not None and ("" in full or sum(spent.values()) + tokens > all_):
            full.add("")
            return f"over the budget of {all_} tokens"
        return ""

    def _timed(self, state: LoreState, run: _Run) -> LoreState:
        """What stays and what is silent now. An entry that stops staying is silent from then on."""
        sticky: dict[str, TimedEffect] = {}
        cooldown = dict(state.cooldown)
        for id, effect in state.sticky.items():
            entry = self._entries.get(id)
            if run.messages < effect.end:
                sticky[id] = effect
                if entry and entry.sticky:
                    run.sticky.add(id)
            elif entry and entry.cooldown:
                cooldown[id] = TimedEffect(run.messages, run.messages + entry.cooldown, kept=True)
        cooldown = {id: effect for id, effect in cooldown.items() if run.messages < effect.end}
        run.silent = {id for id in cooldown if id in self._entries and self._entries[id].cooldown}
        return LoreState(sticky, cooldown, state.fired)

    def _remembered(self, run: _Run, fired: Sequence[FiredEntry]) -> LoreState:
        state, now = run.state, run.messages
        entries = [one.entry for one in fired]
        sticky = {entry.id: TimedEffect(now, now + entry.sticky) for entry in entries if entry.sticky}
        cooldown = {entry.id: TimedEffect(now, now + entry.cooldown) for entry in entries if entry.cooldown}
        first = {entry.id: now for entry in entries}
        return LoreState({**sticky, **state.sticky}, {**cooldown, **state.cooldown}, {**first, **state.fired})


def _said(fired: FiredEntry, macros: Macros) -> str:
    """What others are fired by."""
    content = fired.entry.content
    return macros.expand(content, hidden_keys=True) if "hidden_key" in content.lower() else fired.text


def _named(book: Lorebook, name: str) -> Lorebook:
    return replace(book, name=name, entries=tuple(replace(entry, book=name) for entry in book.entries))


def _precedence(entry: LoreEntry) -> float:
    """Who is kept when the budget is short: the higher priority, or where there is none the higher order."""
    return -(entry.order if entry.priority is None else entry.priority)


def _stable(prepared: _Prepared) -> bool:
    entry = prepared.entry
    always = "activate" in prepared.said or (entry.constant and not prepared.said.keys() - {"role", "depth", "position", "scan_depth"})
    changes = entry.probability < 100 or entry.groups or entry.delay or entry.sticky or entry.cooldown or entry.delay_until_recursion
    return bool(always and not changes and entry.place.spot is not Spot.AT_DEPTH and not _CHANGING.search(entry.content))
