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


class ThoughtsView:
    """Thoughts, dim, above the reply; where stdout is no terminal, or shows JSON, they are not shown."""

    def __init__(self, shown: bool):
        self._shown = shown and sys.stdout.isatty()
        self._view: Wrapped | None = None

    def push(self, text: str) -> None:
        """More of them."""
        if self._shown and text:
            if self._view is None:
                terminal.progress("")
                self._view = Wrapped(_say_dim, lambda: terminal.size(sys.stdout).columns)
            terminal.reached(self._view.push, text)

    def close(self) -> None:
        """They are over; what comes next begins a line."""
        if self._view:
            self._view.close()
        self._view = None


def _say_dim(text: str) -> None:
    terminal.say(terminal.styled(text, sys.stdout, dim=True))


class Verbatim:
    """The reply as it is, but that a terminal of the simplest kind is spared its control characters, too."""

    def __init__(self, cue: str):
        self._cue = cue

    def push(self, text: str) -> None:
        terminal.say(self._cue + terminal.harmless(text, sys.stdout))
        self._cue = ""  # not earlier: a line of progress would have wiped it away

    def close(self) -> None:
        terminal.say("\n")
