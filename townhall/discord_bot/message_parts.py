"""A reply in messages of Discord's: cut at paragraphs and sentences, with code blocks kept whole."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import regex

LIMIT = 2000  # characters of a message; what lies beyond Unicode's first plane counts as two, as JavaScript counts
FENCE, CLOSED = "```", "\n```"
_LANGUAGE = re.compile(r"```([\w+\-.#]*)\n")  # what Discord takes for a code block's language
_PARAGRAPH = re.compile(r"\n[ \t]*\n\s*")
_SENTENCE = re.compile(r"\n\s*|[.!?…][\"'”’»)\]*_~]*\s+|[。！？]")
_SPACE = re.compile(r"\s+")
_CLUSTER = regex.compile(r"\X")  # what a person sees as one character
_EVERYONE = re.compile(r"@(?=everyone|here)", re.IGNORECASE)
_NO_SPACE = "\N{ZERO WIDTH SPACE}"


@dataclass(frozen=True)
class MessagePart:
    """`text` is a stretch of the reply; `opened` and `closed` are there where a code block goes on across messages."""

    text: str
    opened: str = ""
    closed: str = ""

    @property
    def shown(self) -> str:
        """As a message of its own: at most `LIMIT` characters, without white space around it, which Discord takes away; perhaps ""."""
        return neutral(f"{self.opened}{self.text}{self.closed}").strip()


def neutral(text: str) -> str:
    """The text without words that Discord reads as a mention of everyone; they look the same."""
    return _EVERYONE.sub(f"@{_NO_SPACE}", text)


def split(text: str, limit: int = LIMIT) -> list[MessagePart]:
    """The parts of a reply; joined, their texts are the reply. One "" for an empty reply.

    All parts but the last stay as they are when a longer text begins with this one, so that a reply can be sent while it is written.
    """
    parts, at, opened = [], 0, ""
    while True:
        room = limit - len(CLOSED) - _width(opened)
        end = _fitting(text, at, room)
        window = text[at:end]
        spans = list(_code(window, bool(opened)))
        if end < len(text):
            cut = _cut(window, spans, bool(opened))
            window = window[:cut]
            spans = [(start, min(stop, cut), closed and stop <= cut) for start, stop, closed in spans if start < cut]
        inside = bool(spans) and not spans[-1][2]
        closed = "" if not inside else FENCE if window.endswith("\n") else CLOSED
        parts.append(MessagePart(window, opened, closed))
        at += len(window)
        if at == len(text):
            return parts
        if inside and (spans[-1][0] or not opened):  # it was opened in this part
            language = _LANGUAGE.match(window, spans[-1][0])
            opened = f"{FENCE}{language[1] if language else ''}\n"
        elif not inside:
            opened = ""


def _width(text: str) -> int:
    """Characters as Discord counts them, with room for what `neutral` may put behind an @."""
    return len(text) + sum(character > "\uffff" or character == "@" for character in text)


def _fitting(text: str, start: int, room: int) -> int:
    """Where a window of the width `room` ends; never within a run of backticks, unless it is all backticks."""
    end, used = start, 0
    while end < len(text):
        used += 1 + (text[end] > "\uffff" or text[end] == "@")
        if used > room:
            break
        end += 1
    if end < len(text) and text[end] == "`":
        before = end
        while before > start and text[before - 1] == "`":
            before -= 1
        return before if before > start else end
    return end


def _code(window: str, inside: bool) -> Iterator[tuple[int, int, bool]]:
    """(start, end, whether it is closed) of each code block; `inside`: the window begins in one."""
    start = 0 if inside else window.find(FENCE)
    while start >= 0:
        stop = window.find(FENCE, start if inside else start + len(FENCE))
        if stop < 0:
            yield start, len(window), False
            return
        yield start, stop + len(FENCE), True
        inside = False
        start = window.find(FENCE, stop + len(FENCE))


def _cut(window: str, spans: list[tuple[int, int, bool]], inside: bool) -> int:
    """Where to end the message whose text is cut off at the window's end."""
    start, _, closed = spans[-1] if spans else (len(window), 0, True)
    if not closed:
        if window[:start].strip():
            return start  # the block goes into the next message as a whole
        body = window.find("\n", start) + 1 if not inside else 0
        line = window.rfind("\n", body) + 1
        return line if line > body else _clusters(window)
    free = [at for start, stop in _between(spans, len(window)) for at in _ends(window, start, stop)]
    late = [at for at in free if at[0] > len(window) // 2] or free
    if late:
        best = max(rank for _, rank in late)
        return max(at for at, rank in late if rank == best)
    last = spans[-1][1] if spans else 0
    return last if last > len(window) // 2 else _clusters(window)


def _between(spans: list[tuple[int, int, bool]], length: int) -> Iterator[tuple[int, int]]:
    """The stretches outside of code blocks."""
    at = 0
    for start, stop, _ in spans:
        yield at, start
        at = stop
    yield at, length


def _ends(window: str, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """(position, rank) of places to cut at: spaces, sentences, paragraphs."""
    for rank, pattern in enumerate((_SPACE, _SENTENCE, _PARAGRAPH)):
        for match in pattern.finditer(window, start, stop):
            if window[: match.end()].strip():
                yield match.end(), rank


def _clusters(window: str) -> int:
    """The window's end, or the last place before it where no character is cut in two."""
    last = 0
    for match in _CLUSTER.finditer(window):
        last = match.start()
    return last or len(window)
