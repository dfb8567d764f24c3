"""Lorebooks: texts that enter the prompt when the conversation comes to what they are about.

Read from a card's `character_book` (V2, V3), from stand-alone books (`lorebook_v3`) and from SillyTavern's world info files, whose fields
are spelled in camelCase; what SillyTavern adds stands in an entry's `extensions` there, and is read from either place. Nothing here
changes the JSON, which the card keeps.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, Literal, cast

from app.models.llama.sanitize import clipped
from townhall.characters import bounded_json
from townhall.characters.decorators import Value
from townhall.characters.decorators import split as split_decorators
from townhall.characters.errors import LorebookError

MAX_ENTRIES, MAX_KEYS, MAX_CONTENT = 10_000, 100_000, 100_000  # the last in characters of one entry
MOST = 1_000_000  # of any whole number in a lorebook; larger ones count as this
DEFAULT_DEPTH, DEFAULT_WEIGHT, DEFAULT_ORDER = 4, 100, 100

Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant")  # in the order of SillyTavern's numbers


class Logic(Enum):
    """What secondary keys must do, beside a key that is found."""

    AND_ANY = 0
    NOT_ALL = 1
    NOT_ANY = 2
    AND_ALL = 3


class Spot(Enum):
    """Where a text goes; the values are SillyTavern's numbers where it has one."""

    BEFORE_CHARACTER = 0
    AFTER_CHARACTER = 1
    BEFORE_NOTE = 2  # the author's note
    AFTER_NOTE = 3
    AT_DEPTH = 4
    BEFORE_EXAMPLES = 5
    AFTER_EXAMPLES = 6
    OUTLET = 7  # only where a template asks for it by name
    PERSONALITY = 8
    SCENARIO = 9


@dataclass(frozen=True)
class Place:
    """`depth` counts messages from the end of the conversation, 0 behind the newest; depth and role count AT_DEPTH alone."""

    spot: Spot
    depth: int = 0
    role: Role = "system"
    from_start: bool = False  # depth counts from the oldest message instead


@dataclass(frozen=True)
class LoreEntry:
    """A text and when it fires. None leaves an option to the book's settings."""

    book: str
    uid: str
    title: str
    content: str
    keys: tuple[str, ...] = ()
    secondary_keys: tuple[str, ...] = ()
    logic: Logic = Logic.AND_ANY
    bare_regex: bool = False  # keys are regular expressions though no slashes are around them
    enabled: bool = True
    constant: bool = False
    order: float = DEFAULT_ORDER  # lower is earlier in the prompt
    priority: float | None = None  # lower is dropped first
    place: Place = Place(Spot.AFTER_CHARACTER)
    case_sensitive: bool | None = None
    whole_words: bool | None = None
    scan_depth: int | None = None
    probability: float = 100
    exclude_recursion: bool = False  # does not fire by what other entries say
    prevent_recursion: bool = False  # what it says fires no others
    delay_until_recursion: int = 0  # fires in such a pass at the earliest; 0 in any
    sticky: int = 0  # messages that it stays for
    cooldown: int = 0  # messages that it keeps silent for afterwards
    delay: int = 0  # messages that there must be
    groups: tuple[str, ...] = ()
    group_override: bool = False
    group_weight: float = DEFAULT_WEIGHT
    group_scoring: bool | None = None
    ignore_budget: bool = False
    decorators: Mapping[str, Value] | None = None

    @property
    def id(self) -> str:
        """Unique among several books."""
        return f"{self.book}.{self.uid}"


@dataclass(frozen=True)
class Lorebook:
    """None leaves an option to the settings of the scan."""

    name: str
    entries: tuple[LoreEntry, ...]
    scan_depth: int | None = None
    token_budget: int | None = None
    recursive: bool | None = None

    @classmethod
    def from_file(cls, path: Path) -> "Lorebook":
        """A stand-alone book: world info of SillyTavern, or `lorebook_v3`. LorebookError in one sentence."""
        where = f"lorebook {path}"
        try:
            if path.exists() and not path.is_file():
                raise LorebookError(f"{where} is not a file")
            with path.open("rb") as file:
                source = file.read(bounded_json.MAX_BYTES + 1)
        except OSError as error:
            raise LorebookError(f"{where} cannot be read: {error.strerror or error}") from error
        values = bounded_json.parse(source, where)
        if isinstance(values, dict) and values.get("spec") == "lorebook_v3":
            values = values.get("data")
        return cls.from_values(values, path.stem, where)

    @classmethod
    def from_values(cls, values: Any, name: str, where: str) -> "Lorebook":
        """Of a `character_book`, or what a world info file holds; `name` counts where the book has none."""
        entries = values.get("entries") if isinstance(values, dict) else None
        if not isinstance(entries, list | dict):
            raise LorebookError(f"{where} holds no lorebook: a lorebook has entries, a list or an object of them")
        if len(entries) > MAX_ENTRIES:
            raise LorebookError(f"{where} has {len(entries):,} lorebook entries, more than {MAX_ENTRIES:,}; split it")
        book = _Fields(values, f"{where}: the lorebook")
        title = book.text("name") or name
        listed = entries.items() if isinstance(entries, dict) else enumerate(entries)
        read: dict[str, LoreEntry] = {}
        for at, entry in listed:
            made = _entry(entry, title, str(at), f"{where}: entry {clipped(at, 40)} of the lorebook")
            read[made.id] = replace(made, uid=f"{made.uid}#{at}") if made.id in read else made
        if sum(len(entry.keys) + len(entry.secondary_keys) for entry in read.values()) > MAX_KEYS:
            raise LorebookError(f"{where} has more than {MAX_KEYS:,} keys; split it")
        depth, budget = book.number("scan_depth"), book.number("token_budget")
        return cls(
            name=title,
            entries=tuple(read.values()),
            scan_depth=None if depth is None else max(0, int(depth)),
            token_budget=None if budget is None else max(0, int(budget)),
            recursive=book.flag("recursive_scanning"),
        )


class _Fields:
    """An object's values by their types; SillyTavern's names in `extensions`, or in camelCase beside the others."""

    def __init__(self, values: Any, where: str):
        if not isinstance(values, dict):
            raise LorebookError(f"{where} must be an object")
        self._values, self._where = values, where
        extensions = values.get("extensions")
        self.extensions: dict[str, Any] = extensions if isinstance(extensions, dict) else {}
        self._merged = {**values, **{name: value for name, value in self.extensions.items() if value is not None}}

    def get(self, *names: str) -> Any:
        """The first that is there and not null, `extensions` before the rest."""
        for name in names:
            if (value := self._merged.get(name)) is not None:
                return value
        return None

    def text(self, name: str) -> str:
        return self._typed((name,), str, "text") or ""

    def flag(self, *names: str) -> bool | None:
        value = self.get(*names)
        return value if isinstance(value, bool) or value is None else bool(self._typed(names, int | float, "true or false"))

    def number(self, *names: str) -> float | None:
        value: int | float | None = self._typed(names, int | float, "a number")
        return None if value is None else max(-MOST, min(value, MOST))

    def whole(self, *names: str) -> int:
        return max(0, int(self.number(*names) or 0))

    def texts(self, *names: str) -> tuple[str, ...]:
        value: Any = next((self._values[name] for name in names if self._values.get(name) is not None), [])
        if isinstance(value, str):
            value = value.split(",")
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._fault(names[0], "a list of texts")
        return tuple(item.strip() for item in value if item.strip())

    def _typed(self, names: tuple[str, ...], kind: Any, called: str) -> Any:
        value = self.get(*names)
        if value is not None and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
            raise self._fault(names[0], called)
        return value

    def _fault(self, name: str, called: str) -> LorebookError:
        return LorebookError(f"{self._where}: {name!r} must be {called}")


def _entry(values: Any, book: str, at: str, where: str) -> LoreEntry:
    fields = _Fields(values, where)
    content = fields.text("content")
    if len(content) > MAX_CONTENT:
        raise LorebookError(f"{where} has {len(content):,} characters, more than {MAX_CONTENT:,}; split it")
    said, content = split_decorators(content)
    # SillyTavern writes use_regex into every entry, and means keys between slashes
    bare_regex = bool(values.get("use_regex")) and not {"selectiveLogic", "display_index"} & fields.extensions.keys()
    selective = bool(fields.flag("selective")) and not bare_regex
    enabled = values.get("enabled", not values.get("disable", False))
    likely = fields.flag("useProbability") is not False
    uid = fields.get("id", "uid")
    probability, order = fields.number("probability"), fields.number("insertion_order", "order")
    weight = fields.number("group_weight", "groupWeight")
    delayed = fields.get("delay_until_recursion", "delayUntilRecursion")
    return LoreEntry(
        book=book,
        uid=str(at if uid is None else uid)[:100],
        title=(fields.text("comment") or fields.text("name")).strip()[:200],
        content=content,
        keys=fields.texts("keys", "key"),
        secondary_keys=fields.texts("secondary_keys", "keysecondary") if selective else (),
        logic=_logic(fields),
        bare_regex=bare_regex,
        enabled=bool(enabled),
        constant=bool(fields.flag("constant")) and not bare_regex,
        order=DEFAULT_ORDER if order is None else order,
        priority=fields.number("priority"),
        place=_place(fields, said),
        case_sensitive=fields.flag("case_sensitive", "caseSensitive"),
        whole_words=fields.flag("match_whole_words", "matchWholeWords"),
        scan_depth=_depth(fields, said),
        probability=100 if probability is None or not likely else probability,
        exclude_recursion=bool(fields.flag("exclude_recursion", "excludeRecursion")),
        prevent_recursion=bool(fields.flag("prevent_recursion", "preventRecursion")),
        delay_until_recursion=int(delayed) if isinstance(delayed, bool) else fields.whole("delay_until_recursion", "delayUntilRecursion"),
        sticky=fields.whole("sticky"),
        cooldown=fields.whole("cooldown"),
        delay=fields.whole("delay"),
        groups=tuple(group.strip() for group in fields.text("group").split(",") if group.strip()),
        group_override=bool(fields.flag("group_override", "groupOverride")),
        group_weight=DEFAULT_WEIGHT if weight is None else max(0, weight),
        group_scoring=fields.flag("use_group_scoring", "useGroupScoring"),
        ignore_budget=bool(fields.flag("ignore_budget", "ignoreBudget")),
        decorators=said or None,
    )


def _logic(fields: _Fields) -> Logic:
    number = fields.number("selectiveLogic")
    return Logic(int(number)) if number in (0, 1, 2, 3) else Logic.AND_ANY


def _depth(fields: _Fields, said: dict[str, Value]) -> int | None:
    if "scan_depth" in said:
        return cast(int, said["scan_depth"])
    depth = fields.number("scan_depth", "scanDepth")
    return None if depth is None else max(0, int(depth))


def _place(fields: _Fields, said: dict[str, Value]) -> Place:
    """@@position before @@depth before @@reverse_depth before SillyTavern's number before the specification's two words."""
    number = fields.number("role")
    role = ROLES[int(number)] if number in (0, 1, 2) else "system"
    role = cast(Role, said.get("role", role))
    by_name = {"before_desc": Spot.BEFORE_CHARACTER, "after_desc": Spot.AFTER_CHARACTER}
    if position := said.get("position"):
        return Place(by_name.get(str(position)) or Spot[str(position).upper()])
    for name in ("depth", "reverse_depth"):
        if name in said:
            return Place(Spot.AT_DEPTH, cast(int, said[name]), role, from_start=name == "reverse_depth")
    position = fields.get("position")
    if isinstance(position, int | float) and position in range(8):
        spot, depth = Spot(int(position)), fields.number("depth")
        return Place(spot, max(0, int(DEFAULT_DEPTH if depth is None else depth)), role) if spot is Spot.AT_DEPTH else Place(spot)
    return Place(Spot.BEFORE_CHARACTER if position == "before_char" else Spot.AFTER_CHARACTER)
