"""What reading a document gives: its text in blocks, each with the headings above it and the lines it stands on."""

from dataclasses import dataclass
from typing import Any

Heading = tuple[str, ...]  # outermost first


@dataclass(frozen=True)
class TextBlock:
    """A paragraph, a listing, a turn of a chat. `first` to `last` are lines of the file, from 1; of a page, where there are pages."""

    text: str
    first: int
    last: int
    heading: Heading = ()
    page: int | None = None
    code: bool = False  # its lines belong together as they stand; it is not cut at sentence ends

    def to_json(self) -> list[Any]:
        return [self.text, self.first, self.last, list(self.heading), self.page, self.code]

    @classmethod
    def from_json(cls, row: list[Any]) -> "TextBlock":
        text, first, last, heading, page, code = row
        return cls(str(text), int(first), int(last), tuple(map(str, heading)), None if page is None else int(page), bool(code))


class Outline:
    """The headings that are open while a document is read from its beginning."""

    def __init__(self, *outermost: str):
        self._open: list[tuple[int, str]] = [(0, title) for title in outermost if title]

    def enter(self, level: int, title: str) -> None:
        """A heading of that level (from 1) closes those of its own level and below."""
        while self._open and self._open[-1][0] >= level:
            self._open.pop()
        if title := " ".join(title.split()).replace("\0", "").encode(errors="replace").decode()[:200]:
            self._open.append((level, title))

    @property
    def heading(self) -> Heading:
        return tuple(title for _, title in self._open)
