"""Text for a terminal: without control characters, measured in columns, and broken at words while it is still coming."""

import re
from collections.abc import Callable

# C0 and C1 (ESC and the one-byte CSI among them) speak to the terminal, the marks of direction make text look like another; a tab and a
# line break are text, and so are the joiners that emoji are made with
_SPEAKS_TO_THE_TERMINAL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def defused(text: str) -> str:
    """Every control character but tab and line break shows as a replacement character; a carriage return before a line break is dropped."""
    return _SPEAKS_TO_THE_TERMINAL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))


def width(text: str) -> int:
    """Columns that a terminal gives `text`."""
    if text.isascii():
        return len(text)
    from prompt_toolkit.utils import get_cwidth

    return get_cwidth(text)


def styled_width(styled: str) -> int:
    """Columns of a text in a style."""
    return width(re.sub("\x1b\\[[0-9;]*m", "", styled))


FENCES = ("```", "~~~")  # between two of these stands code, whose lines are the writer's own
_TAB = 8
# breaks are allowed on both sides of an ideograph, a syllable of Hangul or Kana, and of what is as wide
_WIDE = "\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe4f\uff00-\uff60\uffe0-\uffe6\U0001f300-\U0001faff\U00020000-\U0003fffd"
_TOKENS = re.compile(f"\n|[^\\S\n]+|[{_WIDE}][\ufe0f\u200d]*|[^\\s{_WIDE}]+")
_ENDED = re.compile(f"[{_WIDE}]$")


class Wrapped:
    """Lines broken at words; what was shown is never written again, so a word waits until it is whole."""

    def __init__(self, write: Callable[[str], None], columns: Callable[[], int], cue: str = ""):
        self.rows = 0  # that the cursor has gone down
        self.write, self._cue = write, cue
        self._columns = columns
        self._column, self._gap, self._word = 0, "", ""
        self._line = ""  # what the writer's own line holds so far
        self._code = False
        self._carried = ""  # half of a line break
        self._shown = ""

    def push(self, text: str) -> None:
        """Show all but the word at the end."""
        if self._cue:
            self._put(self._cue, styled_width(self._cue))
            self._cue = ""
        text = self._carried + text
        self._carried = "\r" if text.endswith("\r") else ""
        for token in _TOKENS.findall(defused(text.removesuffix("\r"))):
            self._take(token)
        if self._code or _ENDED.search(self._word):
            self._end_word()
        self.show()

    def close(self) -> None:
        self.push("")
        self.flush()
        self.write("\n")

    def flush(self) -> None:
        """Show the word at the end as well; the cursor stays behind it."""
        self._end_word()
        self.show()

    def show(self) -> None:
        """To the terminal, in one piece."""
        shown, self._shown = self._shown, ""
        if shown:
            self.write(shown)

    def _take(self, token: str) -> None:
        if token == "\n":
            self._end_word()
            if self._line.lstrip().startswith(FENCES):
                self._code = not self._code
            self._gap = self._line = ""
            self._break()
            return
        self._line += token
        if token.isspace():
            self._end_word()
            self._gap += token
        else:
            if _ENDED.search(self._word) or _ENDED.search(token):
                self._end_word()
            self._word += token

    def _end_word(self) -> None:
        gap, word = self._gap, self._word
        if not word:
            return
        self._gap = self._word = ""
        before, wide = self._column_after(gap), width(word)
        # one column stays free: terminals do not agree on how wide every character is
        fits = before + wide <= self._columns() - 1
        if not fits and self._column and not self._code:
            self._break()
            self._put(word, wide)
        else:
            self._put(gap + word, before - self._column + wide)

    def _put(self, text: str, wide: int) -> None:
        columns = self._columns()
        self._shown += text
        self._column += wide
        if self._column > columns:  # the terminal breaks what is longer than its lines
            self.rows += (self._column - 1) // columns
            self._column = (self._column - 1) % columns + 1

    def _break(self) -> None:
        self._shown += "\n"
        self._column = 0
        self.rows += 1

    def _column_after(self, gap: str) -> int:
        column = self._column
        for c in gap:
            column = (column // _TAB + 1) * _TAB if c == "\t" else column + width(c)
        return column


def wrapped(text: str, columns: int) -> str:
    """`text`, broken at words."""
    parts: list[str] = []
    view = Wrapped(parts.append, lambda: columns)
    view.push(text)
    view.flush()
    return "".join(parts)


def hung(row: str, indent: int, columns: int) -> str:
    """A row broken at words, what follows the first line indented."""
    return row[:indent] + wrapped(row[indent:], columns - indent).replace("\n", "\n" + " " * indent)
