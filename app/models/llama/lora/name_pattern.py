"""Regular expressions over names of modules, matched in bounded time: an adapter's file is not trusted, and Python's `re` may not end.

A pattern is walked with the set of all places where it may stand, so nothing is tried twice. Literals, classes, groups, alternatives and
repetitions are known; look-around and back references are refused. Python's syntax: https://docs.python.org/3/library/re.html
"""

from collections.abc import Callable
from dataclasses import dataclass

MAX_PATTERN = 4096
MAX_REPEAT = 256
BUDGET = 1 << 20  # steps of one match

Places = frozenset[int]
Node = Callable[["_Walk", Places], Places]


class NamePatternError(ValueError):
    """Says what of the pattern is not known."""


@dataclass
class _Walk:
    text: str
    left: int = BUDGET

    def step(self, n: int) -> None:
        self.left -= n + 1
        if self.left < 0:
            raise NamePatternError("takes too long to match")


_DIGITS, _WORD, _SPACE = set("0123456789"), set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"), set(" \t\n\r\f\v")
_CLASSES = {"d": _DIGITS, "w": _WORD, "s": _SPACE}
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r"}


def _one(accepts: Callable[[str], bool]) -> Node:
    def node(walk: _Walk, places: Places) -> Places:
        walk.step(len(places))
        return frozenset(p + 1 for p in places if p < len(walk.text) and accepts(walk.text[p]))

    return node


def _all_of(nodes: list[Node]) -> Node:
    def node(walk: _Walk, places: Places) -> Places:
        for part in nodes:
            if not places:
                break
            places = part(walk, places)
        return places

    return node


def _any_of(nodes: list[Node]) -> Node:
    def node(walk: _Walk, places: Places) -> Places:
        walk.step(len(places))
        return frozenset().union(*(part(walk, places) for part in nodes))

    return node


def _repeated(inner: Node, least: int, most: int | None) -> Node:
    def node(walk: _Walk, places: Places) -> Places:
        for _ in range(least):
            places = inner(walk, places)
        found, new, n = places, places, least
        while new and (most is None or n < most):
            walk.step(len(new))
            new = inner(walk, new) - found
            found, n = found | new, n + 1
        return found

    return node


def _at_start(walk: _Walk, places: Places) -> Places:
    return places & {0}


def _at_end(walk: _Walk, places: Places) -> Places:
    return places & {len(walk.text)}


class _Parser:
    def __init__(self, pattern: str):
        if len(pattern) > MAX_PATTERN:
            raise NamePatternError(f"has more than {MAX_PATTERN:,} characters")
        self.pattern, self.pos, self.depth = pattern, 0, 0

    def peek(self) -> str:
        return self.pattern[self.pos : self.pos + 1]

    def take(self) -> str:
        char = self.peek()
        if not char:
            raise NamePatternError("ends too early")
        self.pos += 1
        return char

    def alternatives(self) -> Node:
        self.depth += 1
        if self.depth > 64:
            raise NamePatternError("is nested too deep")
        branches: list[Node] = []
        while True:
            branches.append(self.sequence())
            if self.peek() != "|":
                break
            self.pos += 1
        self.depth -= 1
        return branches[0] if len(branches) == 1 else _any_of(branches)

    def sequence(self) -> Node:
        parts: list[Node] = []
        while self.peek() not in ("", "|", ")"):
            parts.append(self.repetition(self.atom()))
        return _all_of(parts)

    def repetition(self, atom: Node) -> Node:
        char = self.peek()
        bounds = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(char)
        if bounds is not None:
            self.pos += 1
        elif char == "{":
            bounds = self.counts()
        if bounds is None:
            return atom
        if self.peek() == "?":  # lazy: the same names match
            self.pos += 1
        elif self.peek() in ("+", "*", "{"):
            raise NamePatternError("repeats a repetition")
        return _repeated(atom, *bounds)

    def counts(self) -> tuple[int, int | None] | None:
        end = self.pattern.find("}", self.pos)
        least, comma, most = self.pattern[self.pos + 1 : end].partition(",") if end > 0 else ("", "", "")
        if not (least.isdecimal() or comma) or not all(part == "" or (part.isdecimal() and len(part) < 5) for part in (least, most)):
            raise NamePatternError("has a brace that counts nothing")
        low = int(least or 0)
        high = (int(most) if most else None) if comma else low
        if max(low, high or 0) > MAX_REPEAT:
            raise NamePatternError(f"repeats more than {MAX_REPEAT} times")
        self.pos = end + 1
        return low, high

    def atom(self) -> Node:
        char = self.take()
        if char == "(":
            if self.peek() == "?":
                if self.pattern[self.pos : self.pos + 2] == "?:":
                    self.pos += 2
                elif self.pattern[self.pos : self.pos + 3] == "?P<" and ">" in self.pattern[self.pos :]:
                    self.pos = self.pattern.index(">", self.pos) + 1
                else:
                    raise NamePatternError(f"has the group ({self.pattern[self.pos : self.pos + 3]}…), which is not followed here")
            inside = self.alternatives()
            if self.take() != ")":
                raise NamePatternError("has a group that does not end")
            return inside
        if char == "[":
            return self.characters()
        if char == ".":
            return _one(lambda c: c != "\n")
        if char == "^":
            return _at_start
        if char == "$":
            return _at_end
        if char == "\\":
            return self.escape()
        if char in "*+?{":
            raise NamePatternError(f"repeats nothing with {char}")
        return _one(lambda c: c == char)

    def escape(self) -> Node:
        char = self.take()
        if char in "AZ":
            return _at_start if char == "A" else _at_end
        if char.lower() in _CLASSES:
            known, wanted = _CLASSES[char.lower()], char.islower()
            return _one(lambda c: (c in known) == wanted)
        if char.isalnum() and char not in _CONTROLS:
            raise NamePatternError(f"has \\{char}, which is not followed here")
        literal = _CONTROLS.get(char, char)
        return _one(lambda c: c == literal)

    def characters(self) -> Node:
        negated = self.peek() == "^"
        self.pos += negated
        singles: set[str] = set()
        ranges: list[tuple[str, str]] = []
        first = True
        while first or self.peek() != "]":
            first = False
            char = self.take()
            if char == "\\":
                char = self.take()
                if char in _CLASSES:
                    singles |= _CLASSES[char]
                    continue
                char = _CONTROLS.get(char, char)
            if self.peek() == "-" and self.pattern[self.pos + 1 : self.pos + 2] not in ("]", ""):
                self.pos += 1
                ranges.append((char, self.take()))
            else:
                singles.add(char)
        self.pos += 1
        return _one(lambda c: (c in singles or any(low <= c <= high for low, high in ranges)) != negated)


def fullmatch(pattern: str, text: str, anywhere_after_a_dot: bool = False) -> bool:
    """Does the pattern match all of the text (or of what follows one of its dots)? NamePatternError for what is not followed."""
    parser = _Parser(pattern)
    node = parser.alternatives()
    if parser.pos < len(pattern):
        raise NamePatternError("closes a group that it did not open")
    starts = {0} | {i + 1 for i, char in enumerate(text) if char == "." and anywhere_after_a_dot}
    return len(text) in node(_Walk(text), frozenset(starts))
