"""Text that knows which of its characters people and the model wrote, whatever a template does to it.

A template works with the words of messages as with any text: it searches, cuts, joins and replaces them. `MarkedText` is a str whose
`spans` go along with its characters, so that the rendered prompt still says what the template wrote (where a control token's spelling means
that token) and what a message says (where it never does). Where the way of a character cannot be followed, the whole result counts as
words: `as_words` errs on that side.
"""

from collections.abc import Iterable, Iterator
from typing import Any, SupportsIndex

Span = tuple[int, int, int]  # start, stop, whose words
SOMETHING_SAID = -1  # words of no turn in particular: of an example, or of several messages
DEPTH = 8  # of lists and mappings that are searched for words; deeper ones count as holding some


class MarkedText(str):
    """`spans` are in order and do not overlap; what lies between them is the template's own."""

    __slots__ = ("spans",)
    spans: tuple[Span, ...]

    def __new__(cls, text: str, spans: tuple[Span, ...]) -> "MarkedText":
        self = super().__new__(cls, text)
        self.spans = spans
        return self

    def cut(self, start: int, stop: int) -> str:
        """The characters from `start` to `stop`."""
        spans = tuple((max(a, start) - start, min(b, stop) - start, whose) for a, b, whose in self.spans if max(a, start) < min(b, stop))
        text = super().__getitem__(slice(start, stop))
        return MarkedText(text, spans) if spans else text

    def __str__(self) -> str:
        return self

    def __getitem__(self, key: SupportsIndex | slice) -> str:
        if not isinstance(key, slice):
            at = range(len(self))[key]
            return self.cut(at, at + 1)
        start, stop, step = key.indices(len(self))
        return self.cut(start, max(start, stop)) if step == 1 else as_words(super().__getitem__(key))

    def __iter__(self) -> Iterator[str]:
        return (self.cut(at, at + 1) for at in range(len(self)))

    def __add__(self, other: str) -> str:
        return joined((self, other))

    def __radd__(self, other: str) -> str:
        return joined((other, self))

    def __mul__(self, times: SupportsIndex) -> str:
        return joined([self] * int(times))

    __rmul__ = __mul__

    def lstrip(self, chars: str | None = None, /) -> str:
        return self.cut(len(self) - len(super().lstrip(chars)), len(self))

    def rstrip(self, chars: str | None = None, /) -> str:
        return self.cut(0, len(super().rstrip(chars)))

    def strip(self, chars: str | None = None, /) -> str:
        return self.cut(start := len(self) - len(super().lstrip(chars)), max(start, len(super().rstrip(chars))))

    def removeprefix(self, prefix: str, /) -> str:
        return self.cut(len(prefix), len(self)) if self.startswith(prefix) else self

    def removesuffix(self, suffix: str, /) -> str:
        return self.cut(0, len(self) - len(suffix)) if suffix and self.endswith(suffix) else self

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._found(super().split(sep, maxsplit), len(sep or ""))

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._found(super().rsplit(sep, maxsplit), len(sep or ""))

    def splitlines(self, keepends: bool = False) -> list[str]:
        whole = self._found(super().splitlines(True))
        return whole if keepends else [line[: len(bare)] for line, bare in zip(whole, super().splitlines(), strict=True)]

    def partition(self, sep: str, /) -> tuple[str, str, str]:
        before, found, after = super().partition(sep)
        at, end = len(before), len(before) + len(found)
        return self.cut(0, at), self.cut(at, end), self.cut(end, len(self))

    def rpartition(self, sep: str, /) -> tuple[str, str, str]:
        before, found, after = super().rpartition(sep)
        at, end = len(before), len(before) + len(found)
        return self.cut(0, at), self.cut(at, end), self.cut(end, len(self))

    def replace(self, old: str, new: str, count: SupportsIndex = -1, /) -> str:
        if old not in self:
            return self
        if not old:  # before each character
            return as_words(super().replace(old, new, count))
        first, *rest = self.split(old, count)
        return joined([first, *(part for piece in rest for part in (new, piece))])

    def lower(self) -> str:
        return self._like(super().lower())

    def upper(self) -> str:
        return self._like(super().upper())

    def capitalize(self) -> str:
        return self._like(super().capitalize())

    def title(self) -> str:
        return self._like(super().title())

    def _like(self, text: str) -> str:
        """`text`, which has a character for each of this one's, or more."""
        return MarkedText(text, self.spans) if len(text) == len(self) else as_words(text)

    def _found(self, parts: list[str], between: int = 0) -> list[str]:
        """The parts, each looked for behind the one before it."""
        found, at = [], 0
        for part in parts:
            at = self.find(part, at)
            found.append(self.cut(at, at + len(part)))
            at += len(part) + between
        return found


def words(text: str, whose: int = SOMETHING_SAID) -> str:
    """`text` as the words of a turn, by its index."""
    return MarkedText(text, ((0, len(text), whose),)) if text else text


def marked(value: Any, whose: int = SOMETHING_SAID) -> Any:
    """A value as JSON has it, with every text in it, keys included, as words."""
    if isinstance(value, str):
        return words(value, whose)
    if isinstance(value, dict):
        return {marked(key, whose): marked(item, whose) for key, item in value.items()}
    return [marked(item, whose) for item in value] if isinstance(value, list) else value


def as_words(text: str) -> str:
    """`text`, all of it words, though it is not known whose."""
    return words(str.__str__(text))


def joined(parts: Iterable[str]) -> str:
    """The parts as one text."""
    parts = list(parts)
    spans: list[Span] = []
    at = 0
    for part in parts:
        if isinstance(part, MarkedText):
            for start, stop, whose in part.spans:
                if spans and spans[-1][1:] == (at + start, whose):
                    start = spans.pop()[0] - at
                spans.append((at + start, at + stop, whose))
        at += len(part)
    text = "".join(parts)
    return MarkedText(text, tuple(spans)) if spans else text


def holds_words(value: Any, depth: int = 0) -> bool:
    """Are there words in `value`, or in what it contains?"""
    if isinstance(value, MarkedText):
        return True
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list | tuple | set | frozenset):
        return depth >= DEPTH or any(holds_words(item, depth + 1) for item in value)
    return False


def runs(text: str) -> Iterator[tuple[str, int | None]]:
    """(text, whose words) in order; None for what the template wrote."""
    at = 0
    for start, stop, whose in text.spans if isinstance(text, MarkedText) else ():
        if at < start:
            yield str.__str__(text[at:start]), None
        yield str.__getitem__(text, slice(start, stop)), whose
        at = stop
    if at < len(text):
        yield str.__str__(text[at:]), None
