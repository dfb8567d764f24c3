"""Reads input lines: with an editor at a terminal, plainly where stdin or stdout is none."""

import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from io import TextIOWrapper
from typing import TYPE_CHECKING, Protocol

from townhall.cli import terminal

if TYPE_CHECKING:
    from townhall.cli.typeahead import Typeahead


class LineInput(Protocol):
    """Where the next line comes from. `cleared`: Ctrl-C was pressed on the last one, so that it has nothing to do with its prefill."""

    cleared: bool

    def read(self, prefill: str = "") -> str:
        """The next line, or several that are one message; `prefill` is there to be edited. EOFError where no more will come."""
        ...


def edits() -> bool:
    """Is there a terminal at both ends that can show an editor?"""
    return sys.stdin.isatty() and sys.stdout.isatty() and terminal.capable()


def held() -> "AbstractContextManager[Typeahead | None]":
    """Inside, typed-ahead input is kept for the next line, where there is an editor."""
    if not edits():
        return nullcontext()
    from townhall.cli.typeahead import held_typing

    return held_typing()


def open_line(cue: Callable[[], str], commands: Mapping[str, str], keep: bool, typed: "Typeahead | None" = None) -> LineInput:
    """The editor where there can be one.

    `cue` says who is speaking, `commands` are offered with a line of help each; with `keep` the lines are there in later sessions.
    `typed` is what the first line begins with.
    """
    if not edits():
        if isinstance(sys.stdin, TextIOWrapper):
            sys.stdin.reconfigure(encoding="utf-8-sig", errors="replace")  # a byte order mark is no word
        return PlainLineInput(cue)
    # whose turn it is shows at once: the editor takes a tenth of a second to import, and what is typed until then is held
    terminal.say(terminal.styled(terminal.defused(f"{cue()}: "), sys.stdout, bold=True))
    from townhall.cli.editor import Editor
    from townhall.cli.line_history import LineHistory, default_file

    terminal.say("\r")
    return Editor(cue, LineHistory(default_file(), keep), commands, typed.early if typed else b"")


@dataclass
class PlainLineInput:
    """Lines as the terminal gives them, or a pipe."""

    cue: Callable[[], str]
    info: bool = False
    cleared: bool = False

    def read(self, prefill: str = "") -> str:
        """Enter alone takes `prefill` as it stands, for it cannot be edited here."""
        self.cleared = False
        while True:
            cue = f"{self.cue()} [{prefill}]: " if prefill else f"{self.cue()}: "
            try:
                with terminal.ctrl_c_raises():
                    self._ask(cue)
                    line = sys.stdin.readline()
            except KeyboardInterrupt:
                sys.stderr.write("\n")
                if not self.info:
                    terminal.note(terminal.HOW_TO_LEAVE)
                self.info = self.cleared = True
                prefill = ""
                continue
            if not line:
                self._ask("\n")
                raise EOFError
            return line.rstrip("\n") or prefill

    def _ask(self, text: str) -> None:
        stream = sys.stdout if sys.stdout.isatty() else sys.stderr  # elsewhere stdout belongs to the answers
        stream.write(terminal.harmless(text, stream))
        stream.flush()
