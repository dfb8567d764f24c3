"""Replies in Markdown: shown raw as they come, each block replaced by its rendering once it is whole. Only such a session imports rich."""

import re
import sys
from io import StringIO

from markdown_it import MarkdownIt
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import Heading
from rich.markdown import Markdown as RichMarkdown
from rich.theme import Theme

from townhall.cli import terminal
from townhall.cli.word_wrap import Wrapped

# a model's HTML is text like any other: rich would drop it
_PARSER = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])
_ENDED_BY_AN_EMPTY_LINE = ("paragraph_open", "table_open", "blockquote_open")
_CODE = "ansi_dark"  # the terminal's own colours, on its own background
_THEME = Theme({"markdown.code": "cyan", "markdown.code_block": "none"})
_STYLE = re.compile(r"\x1b\[[0-9;]*m")


def _columns() -> int:
    return terminal.size(sys.stdout).columns


class Markdown:
    """A block that is longer than the screen has rolled out of reach and stays as it was written."""

    def __init__(self, cue: str):
        self._cue = cue
        self._pending = ""  # what is not rendered yet
        self._gap = False  # is an empty row due before the next block?
        self._raw, self._size = Wrapped(terminal.say, _columns), terminal.size(sys.stdout)

    def push(self, text: str) -> None:
        if self._cue:
            terminal.say(f"{self._cue.rstrip(' ')}\n")
            self._cue = ""
        for line in terminal.defused(text.replace("\r", "")).splitlines(keepends=True):
            self._take(line)

    def close(self) -> None:
        self.push("")
        self._raw.flush()
        if length := len(finished(f"{self._pending}\n")):
            self._settle(self._pending[:length], self._pending[length:])
        if self._pending:
            self._raw.flush()
            self._settle(self._pending, "")

    def _take(self, text: str) -> None:
        """A line, or a part of one: no more than one block comes to its end with it."""
        if not self._pending.strip():
            text = text.lstrip("\n")
        if self._gap and text:
            terminal.say("\n")
            self._gap = False
        self._pending += text
        self._raw.push(text)
        if "\n" in text and (whole := finished(self._pending)):
            self._settle(whole, self._pending[len(whole) :])

    def _settle(self, whole: str, rest: str) -> None:
        """Put the rendering of `whole` in the place of what is shown since the last time, and `rest` below it as it is."""
        size, rows = terminal.size(sys.stdout), self._raw.rows
        again: list[str] = []
        raw = Wrapped(again.append, _columns)
        raw.push(rest)
        if rows < size.lines and size == self._size:
            up = f"\x1b[{rows}A" if rows else ""
            terminal.say(f"{up}\r\x1b[J{render(whole, size.columns)}\n" + "".join(["\n", *again] if rest else []))
            self._gap = not rest
        elif not rest:
            terminal.say("" if whole.endswith("\n") else "\n")
            self._gap = not whole.endswith("\n\n")
        raw.write = terminal.say
        self._pending, self._raw, self._size = rest, raw, size


def finished(markup: str) -> str:
    """The blocks at the beginning to which nothing can be added any more: all but the last, and that one where it has an end of its own."""
    lines = markup.split("\n")[:-1]
    blocks = [token for token in _PARSER.parse("\n".join(lines)) if token.level == 0 and token.map and token.nesting >= 0]
    if not blocks:
        return ""
    last = blocks[-1]
    start, end = last.map or [0, 0]
    ended = not lines[-1].strip() if last.type in _ENDED_BY_AN_EMPTY_LINE else last.type in ("heading_open", "hr")
    fenced = last.type == "fence" and start < end - 1 and lines[-1].strip() == last.markup
    return "".join(f"{line}\n" for line in (lines if ended or fenced else lines[:start]))


def render(markup: str, columns: int) -> str:
    """Styled text of at most so many columns, without a line break at its end."""
    out = StringIO()
    colour = terminal.colourful(sys.stdout)
    console = Console(
        file=out,
        width=columns,
        force_terminal=True,
        color_system="auto" if colour else None,
        highlight=False,
        theme=_THEME,
        emoji=False,
        legacy_windows=False,
    )
    console.print(_Rendered(markup), end="")
    rows = [row.rstrip() for row in out.getvalue().split("\n")]
    seen = [at for at, row in enumerate(rows) if _STYLE.sub("", row).strip()]
    return "\n".join(rows[seen[0] : seen[-1] + 1]) if seen else ""


class _Heading(Heading):
    """At the left, as everything is in a talk."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        text = self.text.copy()
        text.justify = "left"
        yield text


class _Rendered(RichMarkdown):
    """rich's, but that a line break is one, HTML is text, and a link shows where it leads."""

    elements = {**RichMarkdown.elements, "heading_open": _Heading}

    def __init__(self, markup: str):
        super().__init__("", code_theme=_CODE, hyperlinks=False)
        self.parsed = _PARSER.parse(markup)
        for token in self.parsed:
            for child in token.children or ():
                if child.type == "softbreak":
                    child.type = "hardbreak"
