"""HTML into blocks, by the standard library's parser: nothing is fetched, nothing runs. DOCX comes this way as well."""

from html.parser import HTMLParser

from townhall.library.blocks import Outline, TextBlock

_HIDDEN = {"script", "style", "template", "svg", "math", "noscript", "iframe", "object", "nav", "select", "button"}
_LINE = {"br", "li", "dt", "dd", "tr", "div", "option", "caption", "figcaption", "summary", "address"}  # begins a new line
_BLOCK = {
    *("p", "section", "article", "main", "header", "footer", "aside", "blockquote", "ul", "ol", "dl", "table", "pre", "form", "hr", "body"),
    *("fieldset", "details", "figure", "title", "h1", "h2", "h3", "h4", "h5", "h6", "html", "head"),
}
_CELL = {"td", "th"}


def html_blocks(text: str) -> list[TextBlock]:
    """Blocks of a page; lines are those of its source."""
    reader = _PageReader()
    reader.feed(text)
    reader.close()
    reader.end_block()
    return reader.blocks


class _PageReader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[TextBlock] = []
        self._outline = Outline()
        self._parts: list[str] = []
        self._first = self._last = 0  # lines of what was read since the last block; 0 where that is nothing
        self._hidden: list[str] = []  # elements open that show nothing
        self._title: int | None = None  # level of the heading that is open; 0 for the page's title
        self._pre = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _HIDDEN:
            self._hidden.append(tag)
        if self._hidden:
            return
        if tag in _BLOCK:
            self.end_block()
        if tag in _LINE:
            self._parts.append("\n- " if tag == "li" else "\n")
        elif tag in _CELL:
            self._parts.append(" | " if self._parts and not self._parts[-1].endswith("\n") else "")
        elif tag == "pre":
            self._pre += 1
        elif (level := _level(tag)) is not None:
            self._title = level

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _HIDDEN:
            self.handle_starttag(tag, attrs)
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._hidden:
            del self._hidden[len(self._hidden) - 1 - self._hidden[::-1].index(tag) :]
            return
        if self._hidden:
            return
        if _level(tag) is not None and self._title is not None:
            self._end_title()
        elif tag in _BLOCK:
            self.end_block()
            self._pre -= tag == "pre" and self._pre > 0
        elif tag == "div":
            self._parts.append("\n")

    def handle_data(self, data: str) -> None:
        if self._hidden or not data.strip() and not self._parts:
            return
        line = self.getpos()[0]
        if data.strip():
            self._first = self._first or line + data[: len(data) - len(data.lstrip())].count("\n")
            self._last = line + data.rstrip().count("\n")
        self._parts.append(data if self._pre else data.replace("\n", " "))

    def end_block(self) -> None:
        """What was read since the last block, as one."""
        if self._title is not None:
            self._end_title()
        parts, self._parts = "".join(self._parts), []
        first, last, self._first = self._first, self._last, 0
        if self._pre:
            text = parts.strip("\n").rstrip()
        else:
            text = "\n".join(line for row in parts.split("\n") if (line := " ".join(row.split()).strip("| ")) not in ("", "-"))
        if text.strip():
            self.blocks.append(TextBlock(text, first, last, self._outline.heading, code=self._pre > 0))

    def _end_title(self) -> None:
        title, level = " ".join("".join(self._parts).split()).rstrip("¶# "), self._title or 0
        self._parts, self._title, self._first = [], None, 0
        if title and level:
            self._outline.enter(level, title)
        elif title:
            self._outline = Outline(title)


def _level(tag: str) -> int | None:
    return 0 if tag == "title" else int(tag[1]) if len(tag) == 2 and tag[0] == "h" and tag[1] in "123456" else None
