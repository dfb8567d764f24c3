"""What people and models said, as Markdown that shows it and nothing else: no tags, no pictures from elsewhere."""

import re
from collections.abc import Iterator
from functools import lru_cache

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_TICKS = re.compile(r"`+")
_PUNCTUATION = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>~$&:@/=])")
_INDENT = re.compile(r"^[ \t]+", re.MULTILINE)
REMEMBERED = 2048  # turns whose Markdown is kept: a long chat is shown again with every piece of a reply


@lru_cache(REMEMBERED)
def spoken(text: str) -> str:
    """A model's words: its Markdown counts, its HTML is shown as it stands, and a picture becomes a link that is not followed by itself."""
    return "".join(part if code else _without_tags(part) for part, code in _fenced(text))


@lru_cache(REMEMBERED)
def written(text: str) -> str:
    """A person's words, character by character as they were typed, but for fenced code, which is shown as such."""
    if "```" in text:
        return spoken(text)
    kept = _INDENT.sub(lambda match: "\N{NO-BREAK SPACE}" * len(match[0].expandtabs(4)), text)
    return _PUNCTUATION.sub(r"\\\1", kept)


def shortened(text: str, most: int) -> str:
    """On one line, in at most so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1].rstrip()}…"


def _fenced(text: str) -> Iterator[tuple[str, bool]]:
    """(lines, is it fenced code); an unclosed fence lasts to the end, as in a reply that is being written."""
    part: list[str] = []
    fence = ""
    for line in text.splitlines(keepends=True):
        found = _FENCE.match(line)
        if fence:
            part.append(line)
            if found and found[1].startswith(fence) and not line[found.end() :].strip():
                yield "".join(part), True
                part, fence = [], ""
        elif found:
            yield "".join(part), False
            part, fence = [line], found[1]
        else:
            part.append(line)
    yield "".join(part), bool(fence)


def _without_tags(text: str) -> str:
    """All but code between backticks, in one pass: a run of backticks is closed by the next one that is as long."""
    runs = list(_TICKS.finditer(text))
    closing: list[int | None] = [None] * len(runs)
    latest: dict[int, int] = {}
    for at in range(len(runs) - 1, -1, -1):
        closing[at] = latest.get(len(runs[at][0]))
        latest[len(runs[at][0])] = at
    parts, done, at = [], 0, 0
    while at < len(runs):
        if (end := closing[at]) is None:
            at += 1
            continue
        parts += [_plain(text[done : runs[at].start()]), text[runs[at].start() : runs[end].end()]]
        done, at = runs[end].end(), end + 1
    return "".join([*parts, _plain(text[done:])])


def _plain(text: str) -> str:
    return text.replace("<", "&lt;").replace("![", "!\\[")
