"""Text for a terminal: without control characters, and how many columns it takes."""

import re

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
