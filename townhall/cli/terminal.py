"""The terminal: answers on stdout, everything about them on stderr, colour only where a person looks."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TextIO

import click


def colourful(stream: TextIO) -> bool:
    """Does the stream end at a terminal that wants colour? NO_COLOR (no-color.org) and TERM=dumb say no."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def styled(text: str, stream: TextIO, **style: bool | str) -> str:
    """`text` in a style that `stream` can show."""
    return click.style(text, **style) if colourful(stream) else text  # type: ignore[arg-type]


def say(text: str = "") -> None:
    """Answer: to stdout, whole or in part, and at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def note(text: str) -> None:
    """A line about the answer: to stderr, dim where that can be shown."""
    _clear_progress()
    sys.stderr.write(styled(text, sys.stderr, dim=True) + "\n")
    sys.stderr.flush()


def complain(text: str) -> None:
    """An error that the session survives."""
    _clear_progress()
    sys.stderr.write(styled(f"townhall: {text}", sys.stderr, fg="red") + "\n")
    sys.stderr.flush()


def progress(text: str) -> None:
    """A line that the next one overwrites; shown to people only."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{styled(text, sys.stderr, dim=True)}")
        sys.stderr.flush()


def _clear_progress() -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")


class Interrupt:
    """Set by Ctrl-C."""

    def __init__(self) -> None:
        self.asked = False

    def __bool__(self) -> bool:
        return self.asked


@contextmanager
def ctrl_c_stops() -> Iterator[Interrupt]:
    """Inside, the first Ctrl-C only sets a flag to be looked at between tokens, so that it never tears the model out of a step.

    The second one raises KeyboardInterrupt, for the case that the first finds no one looking.
    """
    interrupt = Interrupt()

    def handle(signum: int, frame: FrameType | None) -> None:
        if interrupt.asked:
            raise KeyboardInterrupt
        interrupt.asked = True

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)
