"""The terminal: answers on stdout, everything about them on stderr, colour only where a person looks.

What a model, a persona or a log says reaches a terminal without control characters; a pipe gets every byte.
"""

import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Timer
from types import FrameType
from typing import Any, TextIO

import click

from townhall.cli.word_wrap import defused as defused
from townhall.cli.word_wrap import hung, wrapped

HOW_TO_LEAVE = "(Ctrl-D or /exit leaves)"
UNREAD = 1  # exit code after the reader of stdout has gone; click's own for a closed pipe


def colourful(stream: TextIO) -> bool:
    """Is colour wanted there? NO_COLOR says no to all (no-color.org), FORCE_COLOR and CLICOLOR_FORCE yes; else a terminal's is, but for
    TERM=dumb and CLICOLOR=0."""
    if os.environ.get("NO_COLOR"):
        return False
    if any(os.environ.get(name, "0") not in ("", "0") for name in ("FORCE_COLOR", "CLICOLOR_FORCE")):
        return True
    return stream.isatty() and capable() and os.environ.get("CLICOLOR") != "0"


def capable() -> bool:
    """Does the terminal understand more than lines?"""
    return os.environ.get("TERM", "") not in ("dumb", "unknown")


def size(stream: TextIO) -> os.terminal_size:
    """Columns and lines of the terminal that `stream` ends at, as they are now; of any terminal where it ends at none."""
    try:
        found = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):  # no terminal, or not even a file
        return shutil.get_terminal_size()
    return found if found.columns and found.lines else os.terminal_size((80, 24))  # a serial line does not know its size


def styled(text: str, stream: TextIO, **style: bool | str) -> str:
    """`text` in a style that `stream` can show."""
    return click.style(text, **style) if colourful(stream) else text  # type: ignore[arg-type]


def harmless(text: str, stream: TextIO) -> str:
    """`text` without what would speak to the terminal that `stream` ends at instead of the reader; untouched where it ends at none."""
    return defused(text) if stream.isatty() else text


def say(text: str = "") -> None:
    """To stdout as it is, whole or in part, and at once; text of others has to be `harmless` already."""
    sys.stdout.write(text)
    sys.stdout.flush()


def reached(show: Callable[[str], None], text: str) -> bool:
    """Show `text`; False where the terminal or the pipe's reader has gone."""
    try:
        show(text)
    except OSError:
        # what is still buffered has nowhere to go: the interpreter would complain about it when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def note(text: str) -> None:
    """A line about the answer: to stderr, dim where that can be shown."""
    _clear_progress()
    sys.stderr.write(styled(_fitted(text), sys.stderr, dim=True) + "\n")
    sys.stderr.flush()


def complain(text: str) -> None:
    """An error that the session survives."""
    _clear_progress()
    sys.stderr.write(styled(_fitted(f"townhall: {text}"), sys.stderr, fg="red") + "\n")
    sys.stderr.flush()


def progress(text: str) -> None:
    """A line that the next one overwrites; shown to people only."""
    if sys.stderr.isatty() and capable():
        shown = harmless(text, sys.stderr)[: size(sys.stderr).columns - 1]  # a line that wraps could not be overwritten
        sys.stderr.write(f"\r\x1b[K{styled(shown, sys.stderr, dim=True)}")
        sys.stderr.flush()


_LAST_COLUMN = re.compile(r"^\S.* {2,}(?=\S)")  # of a table's row, up to where its last column begins


def _fitted(text: str) -> str:
    """A line about an answer as stderr can show it: harmless, and broken between words where the terminal would break it anywhere."""
    if not sys.stderr.isatty():
        return text
    text, columns = defused(text), size(sys.stderr).columns
    rows = text.split("\n")
    if all(len(row) < columns for row in rows):
        return text
    indents = [found.end() if (found := _LAST_COLUMN.match(row)) else 0 for row in rows]
    if max(indents) <= columns // 2:
        return "\n".join(hung(row, indent, columns) for row, indent in zip(rows, indents, strict=True))
    return wrapped(re.sub(r"(?<=\S) {3,}", "  ", text), columns)  # too narrow for a table's columns


def _clear_progress() -> None:
    if sys.stderr.isatty() and capable():
        sys.stderr.write("\r\x1b[K")


class Interrupt:
    """Set by Ctrl-C, and by the system's wish that the program end."""

    def __init__(self) -> None:
        self.asked = False
        self.at = 0.0  # when, on the monotonic clock
        self.leaving: int | None = None  # the code that the program is to end with

    def __bool__(self) -> bool:
        return self.asked

    def ask(self, leaving: int | None = None) -> None:
        """Stop at the next good moment."""
        self.asked, self.at, self.leaving = True, time.monotonic(), leaving or self.leaving

    def leave(self) -> None:
        """End the program where the system wished so, now that nothing is left to be kept."""
        if self.leaving is not None:
            raise SystemExit(self.leaving)


@contextmanager
def ctrl_c_stops(patience: float = 0.0, interrupt: Interrupt | None = None) -> Iterator[Interrupt]:
    """Inside, the first Ctrl-C only sets a flag (`interrupt`) to be looked at between passes, so that it never tears the model out of one.

    A second one raises KeyboardInterrupt, for the case that the first finds no one looking; not within `patience` seconds, for fingers are
    quick. SIGTERM and a terminal that vanishes set the flag as well: the caller keeps what there is and calls `leave`.
    """
    interrupt = Interrupt() if interrupt is None else interrupt

    def handle(signum: int, frame: FrameType | None) -> None:
        if not interrupt:
            interrupt.ask()
        elif time.monotonic() - interrupt.at >= patience:
            raise KeyboardInterrupt

    with _handled({signal.SIGINT: handle} | {number: lambda signum, frame: interrupt.ask(128 + signum) for number in _endings()}):
        yield interrupt


@contextmanager
def ends_in_order() -> Iterator[None]:
    """Inside, SIGTERM and a terminal that vanishes unwind the program, so that terminals are left as they were found; no Ctrl-C is lost."""

    def leave(signum: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + signum)

    def hear(lost: Any) -> None:
        """Python drops what is raised in a callback of its own, such as one that every import has: the same again, a moment later."""
        number = {KeyboardInterrupt: signal.SIGINT, SystemExit: signal.SIGTERM}.get(lost.exc_type)
        if number is None:
            before(lost)
        else:
            Timer(0.02, os.kill, (os.getpid(), number)).start()

    before, sys.unraisablehook = sys.unraisablehook, hear
    try:
        with _handled(dict.fromkeys(_endings(), leave)):
            yield
    finally:
        sys.unraisablehook = before


@contextmanager
def ctrl_c_does_nothing() -> Iterator[None]:
    """Inside, a Ctrl-C that comes between one thing and the next is lost; the things themselves say what it means to them."""
    with _handled({signal.SIGINT: lambda signum, frame: None}):
        yield


@contextmanager
def ctrl_c_raises() -> Iterator[None]:
    """Inside, Ctrl-C raises KeyboardInterrupt as usual."""
    with _handled({signal.SIGINT: signal.default_int_handler}):
        yield


def _endings() -> list[int]:
    """Signals that end a program, but for those that its caller had it ignore (nohup)."""
    wanted = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    return [number for number in wanted if signal.getsignal(number) is not signal.SIG_IGN]


@contextmanager
def _handled(handlers: Mapping[int, Callable[[int, FrameType | None], object]]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
