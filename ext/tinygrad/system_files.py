"""Files in which the system tells of itself, below /proc and /sys."""

from pathlib import Path


def read(path: Path) -> str:
    """What it holds, without the white space at its ends; nothing where it is missing or may not be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
