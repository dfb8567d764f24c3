"""Type-ahead: input typed while no line is read is kept for the next one, and is not echoed into other output."""

import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType

from townhall.cli import terminal

PASTE_ON, PASTE_OFF = "\x1b[?2004h", "\x1b[?2004l"  # between marks, a paste of many lines stays one message


@dataclass(frozen=True)
class Typeahead:
    """What was typed while the program was not there yet to say how."""

    early: bytes


@contextmanager
def held_typing() -> Iterator[Typeahead]:
    """Inside, the terminal neither echoes nor waits for whole lines, and an Enter stays an Enter; Ctrl-C and Ctrl-Z work as ever.

    Before the program stops (Ctrl-Z) the terminal is given back as it was found, and taken again when it goes on.
    """
    try:
        import termios
    except ImportError:  # Windows holds it by itself
        yield Typeahead(b"")
        return
    fd = sys.stdin.fileno()
    found = termios.tcgetattr(fd)

    def take() -> None:
        attributes = termios.tcgetattr(fd)
        attributes[0] &= ~(termios.ICRNL | termios.INLCR | termios.IGNCR)  # input: Enter and Ctrl-J are two keys
        attributes[3] &= ~(termios.ECHO | termios.ICANON)  # local: neither echoed nor by lines
        attributes[3] |= termios.ISIG | termios.NOFLSH  # Ctrl-C stops a reply and costs nothing of what was typed
        attributes[6][termios.VMIN], attributes[6][termios.VTIME] = 1, 0
        termios.tcsetattr(fd, termios.TCSANOW, attributes)
        terminal.say(PASTE_ON)

    def give_back() -> None:
        with suppress(termios.error, OSError):  # it has vanished
            terminal.say(PASTE_OFF)
            termios.tcsetattr(fd, termios.TCSANOW, found)

    def stop(signum: int, frame: FrameType | None) -> None:
        now = termios.tcgetattr(fd)
        give_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        with suppress(termios.error, OSError):
            termios.tcsetattr(fd, termios.TCSANOW, now)
            terminal.say(PASTE_ON)

    before = signal.getsignal(signal.SIGTSTP)
    if before is not signal.SIG_IGN:  # there is a shell that takes over when the program stops
        signal.signal(signal.SIGTSTP, stop)
    try:
        take()
        yield Typeahead(_unread(fd))
    finally:
        give_back()
        signal.signal(signal.SIGTSTP, before)


def _unread(fd: int) -> bytes:
    """The terminal has made line breaks of the Enters in it."""
    data = b""
    while select.select([fd], [], [], 0)[0] and (piece := os.read(fd, 4096)):
        data += piece
    return data.replace(b"\n", b"\r")
