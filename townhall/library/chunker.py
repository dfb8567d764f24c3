"""Cuts a document's blocks into passages: within a heading, at paragraphs, else at sentence ends, with a little overlap."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, takewhile

from townhall.library.blocks import Heading, TextBlock

LIMIT = 200  # tokens of a passage
OVERLAP = 30  # tokens of the passage before it, at most, that a passage begins with

Counter = Callable[[str], int]
_WORDS = re.compile(r"\w{1,6}|[^\w\s]")
_END = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+(?=[\"'“‘(\[*_`]*[A-Z0-9À-Þ])|(?<=[。！？])|\n\s*(?=[-*•] |\d+[.)] )")
_ABBREVIATION = re.compile(r"(?:\b(?:[A-Z]|e\.g|i\.e|vs|cf|[Mm]rs?|Dr|Prof|St|No|Fig|Eq|al|approx|[Vv]ol|pp?))\.$")


def count_words(text: str) -> int:
    """An estimate of a model's tokens without the model: words, long ones several times, and marks."""
    return len(_WORDS.findall(text))


@dataclass(frozen=True)
class Chunk:
    """A passage as it is indexed. `first` to `last` are lines of the file, or of the page."""

    text: str
    first: int
    last: int
    heading: Heading
    page: int | None


@dataclass(frozen=True)
class _Piece:
    """A sentence, or a line of code, with what stands between it and the piece before; never longer than a passage."""

    text: str
    before: str
    first: int
    last: int
    tokens: int
    begins: bool  # a block
    code: bool


def chunks(blocks: Iterable[TextBlock], limit: int = LIMIT, overlap: int = OVERLAP, count: Counter = count_words) -> Iterator[Chunk]:
    """Passages of at most `limit` tokens by `count`, in order; together they hold all of the text.

    Sections so short that several fit into a passage share one, below the headings that they have in common.
    """
    held: tuple[Chunk, int] | None = None
    for chunk, tokens in _sections(blocks, limit, overlap, count):
        if held and (joined := _joined(*held, chunk, tokens, limit, count)):
            held = joined
            continue
        if held:
            yield held[0]
        held = chunk, tokens
    if held:
        yield held[0]


def _sections(blocks: Iterable[TextBlock], limit: int, overlap: int, count: Counter) -> Iterator[tuple[Chunk, int]]:
    """Passages that lie below one heading each, and their tokens."""
    for (heading, page), section in groupby(blocks, key=lambda block: (block.heading, block.page)):
        pieces = [piece for block in section for piece in _pieces(block, limit, count)]
        for part in _packed(pieces, limit, overlap):
            text = part[0].text + "".join(piece.before + piece.text for piece in part[1:])
            yield Chunk(text, part[0].first, part[-1].last, heading, page), sum(piece.tokens for piece in part)


def _joined(above: Chunk, tokens: int, below: Chunk, more: int, limit: int, count: Counter) -> tuple[Chunk, int] | None:
    """Both in one where one of them is small and neither continues the other; a heading that only one has stands in the text."""
    if above.heading == below.heading or above.page != below.page or min(tokens, more) > limit // 3 or tokens + more > limit:
        return None
    shared = tuple(title for title, other in takewhile(lambda pair: pair[0] == pair[1], zip(above.heading, below.heading)))
    first, second = _titled(above, len(shared)), _titled(below, len(shared))
    text = f"{first}\n\n{second}"
    return (Chunk(text, above.first, below.last, shared, above.page), total) if (total := count(text)) <= limit else None


def _titled(chunk: Chunk, depth: int) -> str:
    """Its text below those of its headings that are `depth` deep or deeper, unless the text begins with them, as code does."""
    titles = [title for title in chunk.heading[depth:] if title not in chunk.text]
    return "\n".join([" > ".join(titles), chunk.text]) if titles else chunk.text


def _packed(pieces: list[_Piece], limit: int, overlap: int) -> Iterator[list[_Piece]]:
    """Runs of pieces within the limit. A run ends with a block where that leaves it at least half full."""
    start = fresh = 0  # the run's first piece, and its first that the run before does not have
    while fresh < len(pieces):
        end, tokens, full = start, 0, fresh
        while end < len(pieces) and (tokens + pieces[end].tokens <= limit or end == fresh):
            tokens += pieces[end].tokens
            end += 1
            if end > fresh and 2 * tokens >= limit and end < len(pieces) and pieces[end].begins:
                full = end
        if end < len(pieces) and full > fresh:
            end = full
        yield pieces[start:end]
        start = fresh = end
        if end < len(pieces) and not (pieces[end].code and pieces[end].begins):
            room = min(overlap, limit - pieces[end].tokens)
            while start > 0 and (room := room - pieces[start - 1].tokens) >= 0:
                start -= 1


def _pieces(block: TextBlock, limit: int, count: Counter) -> Iterator[_Piece]:
    """The sentences or lines of a block; those that are longer than a passage come in parts."""
    if block.code and (tokens := count(block.text)) <= limit // 3:  # a short listing stays whole
        yield _Piece(block.text, "\n\n", block.first, block.last, tokens, True, True)
        return
    exact = (
        block.text.count("\n") == block.last - block.first
    )  # else its lines are not the file's, and only its own first and last are known
    at, line = 0, block.first
    for start, end in _spans(block.text, block.code):
        for part_start, part_end, tokens in _parts(block.text, at, start, end, limit, count):
            before = block.text[at:part_start] if at else "\n\n"
            text = block.text[part_start:part_end]
            line += before.count("\n") if exact and at else 0
            last = line + text.count("\n") if exact else block.last
            yield _Piece(text, before, line, last, tokens, at == 0, block.code)
            line, at = last if exact else line, part_end


def _spans(text: str, code: bool) -> Iterator[tuple[int, int]]:
    """Where sentences, or lines of code, begin and end."""
    start = 0
    for gap in re.finditer(r"\n+", text) if code else _END.finditer(text):
        if not code and _ABBREVIATION.search(text, max(start, gap.start() - 8), gap.start()):
            continue
        end = gap.end() - len(gap[0].lstrip("\"'”’)]*")) if not code else gap.start()
        if text[start:end].strip():
            yield start, end
            start = gap.end()
    if text[start:].strip():
        yield start, len(text)


def _parts(text: str, at: int, start: int, end: int, limit: int, count: Counter) -> Iterator[tuple[int, int, int]]:
    """(start, end, tokens since `at`) of the stretch, or of halves of it within the limit, cut between words where there are any."""
    tokens = count(text[at:end])
    if tokens <= limit or end - start < 2:
        yield start, end, tokens
        return
    middle = (start + end) // 2
    space = text.find(" ", middle, middle + (end - start) // 4)
    cut = space if space > start else middle
    yield from _parts(text, start, start, cut, limit, count)
    yield from _parts(text, cut, cut + (space > start), end, limit, count)
