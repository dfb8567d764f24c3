"""Macros of cards and lorebooks, {{char}} and the like: replaced once, innermost first; what they put in is not read again.

The set is V3's and the plain ones of SillyTavern. One that is not known stays as it is written, and `unknown` names it.
"""

import hashlib
import random
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from townhall.characters.errors import CardError

MAX_DEPTH = 16  # of macros in macros; what is deeper stays as it is written
MAX_TEXT = 1_000_000  # characters of a text, before and after
MAX_CHOICES = 10_000
MAX_NAME = 200  # characters that stand for {{char}} or {{user}}
MAX_DICE, MAX_SIDES = 100, 1_000_000
_BRACES = re.compile(r"\{\{|\}\}")
_TAGS = re.compile(r"<(user|bot|char)>", re.IGNORECASE)
_CALL = re.compile(r"\s*(//|[A-Za-z_]\w*)\s*(::?|(?<=//)|\s+|$)(.*)", re.DOTALL)
_TRIM = re.compile(r"\{\{trim\}\}", re.IGNORECASE)
_DICE = re.compile(r"(?:(\d{0,4})[dD])?(\d{1,9})(?:([+-])(\d{1,9}))?")
_COMMA = re.compile(r"(?<!\\),")
SIMPLE = ("char", "user", "charifnotgroup", "group", "newline", "noop", "trim", "date", "time", "weekday", "isodate", "isotime", "original")
TAKING = ("random", "pick", "roll", "reverse", "hidden_key", "comment", "//")


@dataclass(frozen=True)
class _Call:
    """A macro: its parts are texts, and macros in it."""

    parts: list["str | _Call"] = field(default_factory=list)


@dataclass(frozen=True)
class Macros:
    """What macros stand for. `chat` makes {{pick}} the same in all of one chat; `rng` draws {{random}} and {{roll}}."""

    char: str
    user: str = "User"
    chat: str = ""
    rng: random.Random = field(default_factory=lambda: random.Random(0))
    now: datetime | None = None
    values: Mapping[str, str] = field(default_factory=dict)  # more of them by their names, lower case: original, description, …

    def expand(self, text: str, hidden_keys: bool = False) -> str:
        """`text` with its macros replaced; with `hidden_keys` {{hidden_key:…}} shows, for a scan. CardError where it grows too long."""
        if "{{" not in text and "<" not in text:
            return text
        run = _Pass(MAX_TEXT, _digest(text), hidden_keys)
        return "".join(self._written(_parsed(_trim(text)), run))

    def _written(self, parts: Iterable["str | _Call"], run: "_Pass") -> Iterator[str]:
        for part in parts:
            if isinstance(part, str):
                piece = _TAGS.sub(lambda tag: self._name("user" if tag[1].lower() == "user" else "char"), part) if "<" in part else part
            else:
                piece = self._value(part, run)
            run.room -= len(piece)
            if run.room < 0:
                raise CardError(f"the macros of a text make more than {MAX_TEXT:,} characters of it; take some out")
            yield piece

    def _value(self, call: _Call, run: "_Pass") -> str:
        run.count += 1
        name, separator, argument = _split(call)
        if name in self.values and not argument:
            return self.values[name]
        if name in SIMPLE and not argument:
            return self._simple(name)
        if name in ("//", "comment"):
            return ""
        if name == "hidden_key":
            return "".join(self._written(argument, run)) if run.hidden_keys else ""
        if name in ("random", "pick") and separator.strip():
            choices = _choices(argument, separator)
            picked = random.Random(f"{self.chat}\n{run.source}\n{run.count}") if name == "pick" else self.rng
            return "".join(self._written(choices[picked.randrange(len(choices))], run))
        if name == "roll":
            return self._roll("".join(self._written(argument, run)).strip())
        if name == "reverse" and separator.strip():
            return "".join(self._written(argument, run))[::-1]
        return "{{" + "".join(self._written(call.parts, run)) + "}}"

    def _simple(self, name: str) -> str:
        if name in ("char", "user"):
            return self._name(name)
        if name in ("charifnotgroup", "group"):
            return self._name("char")
        if name in ("noop", "original", "trim"):
            return ""
        if name == "newline":
            return "\n"
        now = self.now or datetime.now()
        if name in ("isodate", "isotime", "weekday"):
            return now.strftime({"isodate": "%Y-%m-%d", "isotime": "%H:%M", "weekday": "%A"}[name])
        # moment.js's LL and LT: September 4, 1986 and 8:30 PM
        return f"{now:%B} {now.day}, {now.year}" if name == "date" else f"{now.hour % 12 or 12}:{now:%M} {'PM' if now.hour >= 12 else 'AM'}"

    def _name(self, of: str) -> str:
        return (self.char if of == "char" else self.user)[:MAX_NAME]

    def _roll(self, dice: str) -> str:
        """6, d6, 2d6+1; "" for what is no dice."""
        if (match := _DICE.fullmatch(dice)) is None:
            return ""
        count, sides = int(match[1] or 1), int(match[2])
        if not 1 <= count <= MAX_DICE or not 1 <= sides <= MAX_SIDES:
            return ""
        bonus = int(match[4] or 0) * (-1 if match[3] == "-" else 1)
        return str(sum(self.rng.randint(1, sides) for _ in range(count)) + bonus)


@dataclass
class _Pass:
    """One expansion: characters left, which text it is, and how many macros came."""

    room: int
    source: str
    hidden_keys: bool
    count: int = 0


def _trim(text: str) -> str:
    """Without {{trim}} and the ends of lines beside it."""
    if "{{trim}}" not in text.lower():
        return text
    first, *between, last = _TRIM.split(text)
    return "".join([first.rstrip("\r\n"), *(part.strip("\r\n") for part in between), last.lstrip("\r\n")])


def unknown(text: str, values: Iterable[str] = ()) -> list[str]:
    """The names of macros in `text` that stay as they are written, each once."""
    known = {*SIMPLE, *TAKING, *values}
    names: dict[str, None] = {}
    pending = list(reversed(_parsed(text))) if "{{" in text else []
    while pending:
        if isinstance(part := pending.pop(), _Call):
            name, _, argument = _split(part)
            if name not in known or (name not in TAKING and argument):
                names[_shown(part)] = None
            if name not in ("//", "comment"):
                pending += reversed(argument if name in known else part.parts)
    return list(names)


def _parsed(text: str) -> list["str | _Call"]:
    """Texts and macros; braces that close nothing, are not closed, or stand too deep are text."""
    if len(text) > MAX_TEXT:
        raise CardError(f"a text with macros has {len(text):,} characters, more than {MAX_TEXT:,}; shorten it")
    stack: list[list[str | _Call]] = [[]]
    at = depth = 0
    for brace in _BRACES.finditer(text):
        if brace.start() > at:
            stack[-1].append(text[at : brace.start()])
        at = brace.end()
        if brace[0] == "{{" and len(stack) <= MAX_DEPTH:
            stack.append([])
        elif brace[0] == "{{":
            depth += 1
            stack[-1].append("{{")
        elif depth:
            depth -= 1
            stack[-1].append("}}")
        elif len(stack) > 1:
            parts = stack.pop()
            stack[-1].append(_Call(parts))
        else:
            stack[-1].append("}}")
    if at < len(text):
        stack[-1].append(text[at:])
    while len(stack) > 1:
        parts = stack.pop()
        stack[-1] += ["{{", *parts]
    return stack[0]


def _split(call: _Call) -> tuple[str, str, list["str | _Call"]]:
    """(name, lower case, what separates it from its argument, the argument)."""
    if not call.parts or not isinstance(first := call.parts[0], str) or (match := _CALL.match(first)) is None:
        return "", "", []
    rest: list[str | _Call] = [match[3]] if match[3] else []
    return match[1].lower(), match[2], rest + call.parts[1:]


def _choices(argument: list["str | _Call"], separator: str) -> list[list["str | _Call"]]:
    """Split at :: where there is one, else at commas that no backslash precedes; a macro belongs to one choice, whatever it says."""
    if sum(part.count(",") + part.count("::") for part in argument if isinstance(part, str)) > MAX_CHOICES:
        raise CardError(f"a macro offers more than {MAX_CHOICES:,} choices; take some out")
    doubled = any(isinstance(part, str) and "::" in part for part in argument) or (separator == "::" and not _has_comma(argument))
    choices: list[list[str | _Call]] = [[]]
    for part in argument:
        if not isinstance(part, str):
            choices[-1].append(part)
            continue
        first, *more = part.split("::") if doubled else _COMMA.split(part)
        choices[-1].append(first)
        choices += [[piece] for piece in more]
    return choices if doubled else [_trimmed(choice) for choice in choices]


def _has_comma(argument: list["str | _Call"]) -> bool:
    return any(isinstance(part, str) and _COMMA.search(part) for part in argument)


def _trimmed(choice: list["str | _Call"]) -> list["str | _Call"]:
    parts = [part.replace("\\,", ",") if isinstance(part, str) else part for part in choice]
    for end, strip in ((0, str.lstrip), (-1, str.rstrip)):
        if parts and isinstance(part := parts[end], str):
            parts[end] = strip(part)
    return parts


def _shown(call: _Call) -> str:
    return "".join(part if isinstance(part, str) else "{{…}}" for part in call.parts).strip()[:40]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
