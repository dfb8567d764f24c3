"""How a reply shows while it comes: byte for byte in a pipe; at a terminal wrapped at words, and without what would speak to it."""

import sys
from typing import Protocol

from townhall.cli import terminal
from townhall.cli.word_wrap import Wrapped


class View(Protocol):
    """Where the pieces of a reply go."""

    def push(self, text: str) -> None: ...

    def close(self) -> None:
        """The reply is over, or was stopped: show what was held back, and end the line."""
        ...


def open_view(cue: str = "", markdown: bool = False) -> View:
    """The way that fits stdout. `cue`, in its style, stands before the reply; `markdown` renders it where that can be seen."""
    if not (sys.stdout.isatty() and terminal.capable()):
        return Verbatim(cue)
    if markdown:
        from townhall.cli.markdown import Markdown

        return Markdown(cue)
    return Wrapped(terminal.say, lambda: terminal.size(sys.stdout).columns, cue)


class Verbatim:
    """The reply as it is, but that a terminal of the simplest kind is spared its control characters, too."""

    def __init__(self, cue: str):
        self._cue = cue

    def push(self, text: str) -> None:
        terminal.say(self._cue + terminal.harmless(text, sys.stdout))
        self._cue = ""  # not earlier: a line of progress would have wiped it away

    def close(self) -> None:
        terminal.say("\n")
