"""Text of files as a message may repeat it: short, printable, on one line."""

import reprlib
from typing import Any


def quoted(value: Any) -> str:
    """Like repr, cut to about thirty characters."""
    return " ".join(reprlib.repr(value).split())


def clipped(text: object, limit: int = 120) -> str:
    """The first line of another library's message."""
    line = "".join(char if char.isprintable() else " " for char in str(text))
    return " ".join(line.split())[:limit]
