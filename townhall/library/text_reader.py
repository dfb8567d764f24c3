"""Plain text, reStructuredText and Markdown into blocks: paragraphs below the headings that stand above them."""

import codecs
import re

from townhall.library.blocks import Outline, TextBlock

_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})([^`]*)$")
_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))??(?:[ \t]+#+)?[ \t]*$")  # https://spec.commonmark.org/0.31.2/#atx-headings
_SETEXT = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_NO_PARAGRAPH = re.compile(r" {4,}|\t| {0,3}(?:>|[-*+] |\d+[.)] |\||<)")  # what an underline does not make a heading of
# https://docutils.sourceforge.io/docs/ref/rst/restructuredtext.html#sections
_ADORNMENT = re.compile(r"([=\-~^\"'`#*+.:_<>])\1{2,}\s*$")
_NUMBERED = re.compile(r"(\d+(?:\.\d+)*)\.?[ \t]{1,3}[A-Z]\S*(?: \S+){0,9}$")  # as RFCs number their sections
_TITLE = 100  # characters; a longer line is none


def decoded(data: bytes) -> str:
    """Text of bytes: by its byte order mark, else UTF-8, else Windows' Western encoding; line ends become a newline."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            text = data.decode(encoding, errors="replace")
            break
    else:
        try:
            text = data.decode()
        except UnicodeDecodeError:
            text = data.decode("cp1252", errors="replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def markdown_blocks(text: str, first: int = 1) -> list[TextBlock]:
    """Blocks of Markdown whose first line has that number; front matter and fenced code are blocks of their own."""
    lines, outline, paragraph = text.split("\n"), Outline(), _Paragraph()
    i = _front_matter(lines, paragraph, first)
    while i < len(lines):
        line = lines[i]
        if fence := _FENCE.match(line):
            paragraph.close(outline)
            end = _fence_end(lines, i, fence[1])
            paragraph.blocks += _listing(lines[i + 1 : end], first + i + 1, outline)
            i = end
        elif atx := _ATX.match(line):
            paragraph.close(outline)
            outline.enter(len(atx[1]), atx[2] or "")
        elif paragraph.lines and (underline := _SETEXT.match(line)) and not _NO_PARAGRAPH.match(paragraph.lines[0]):
            title = " ".join(paragraph.take())
            outline.enter(1 if underline[1][0] == "=" else 2, title)
        else:
            paragraph.add(line, first + i, outline)
        i += 1
    paragraph.close(outline)
    return paragraph.blocks


def plain_blocks(text: str) -> list[TextBlock]:
    """Blocks of plain text. Underlined titles and numbered ones are headings; an underline's rank is the order of its first use."""
    lines, outline, paragraph = text.replace("\f", "").split("\n"), Outline(), _Paragraph()
    styles: list[tuple[str, bool]] = []
    i = 0
    while i < len(lines):
        line, below = lines[i], lines[i + 1] if i + 1 < len(lines) else ""
        alone = not paragraph.lines
        over = (
            bool(alone and _ADORNMENT.match(line))
            and i + 2 < len(lines)
            and _underlines(lines[i + 2], below)
            and lines[i + 2][0] == line[0]
        )
        if over or (alone and _underlines(below, line)):
            title, style = (below.strip(), (line[0], True)) if over else (line, (below[0], False))
            if style not in styles:
                styles.append(style)
            outline.enter(styles.index(style) + 1, title)
            i += 3 if over else 2
            continue
        if alone and not below.strip() and len(line) <= _TITLE and (numbered := _NUMBERED.match(line)) and line[-1] not in ".,;:?!":
            outline.enter(len(styles) + numbered[1].count(".") + 1, line)
        elif alone and _ADORNMENT.match(line):
            pass  # a line drawn between things
        else:
            paragraph.add(line, i + 1, outline)
        i += 1
    paragraph.close(outline)
    return paragraph.blocks


def _underlines(line: str, title: str) -> bool:
    return (
        bool(_ADORNMENT.match(line))
        and bool(title.strip())
        and len(title) <= _TITLE
        and len(line.rstrip()) >= len(title.strip())
        and not _ADORNMENT.match(title)
    )


def _front_matter(lines: list[str], paragraph: "_Paragraph", first: int) -> int:
    """Take YAML on top as a block; the index of the line after it."""
    if lines[0].strip() != "---":
        return 0
    end = next((i for i, line in enumerate(lines[1:200], 1) if line.strip() in ("---", "...")), 0)
    if end:
        paragraph.blocks += _listing(lines[1:end], first + 1, Outline())
    return end + 1 if end else 0


def _fence_end(lines: list[str], start: int, fence: str) -> int:
    closing = re.compile(rf" {{0,3}}{re.escape(fence[0])}{{{len(fence)},}}[ \t]*$")
    return next((i for i in range(start + 1, len(lines)) if closing.match(lines[i])), len(lines))


def _listing(lines: list[str], first: int, outline: Outline) -> list[TextBlock]:
    while lines and not lines[0].strip():
        lines, first = lines[1:], first + 1
    text = "\n".join(lines).rstrip()
    return [TextBlock(text, first, first + text.count("\n"), outline.heading, code=True)] if text else []


class _Paragraph:
    """Lines up to a blank one."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.blocks: list[TextBlock] = []
        self._first = 0

    def add(self, line: str, number: int, outline: Outline) -> None:
        if not line.strip():
            self.close(outline)
            return
        if not self.lines:
            self._first = number
        self.lines.append(line.rstrip())

    def take(self) -> list[str]:
        lines, self.lines = self.lines, []
        return lines

    def close(self, outline: Outline) -> None:
        if lines := self.take():
            self.blocks.append(TextBlock("\n".join(lines), self._first, self._first + len(lines) - 1, outline.heading))
