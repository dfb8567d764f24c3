"""Avatars: drawn for the personas that ship, an initial on a colour for others."""

import colorsys
import hashlib
from html import escape
from pathlib import Path

FOLDER = Path(__file__).parent / "portraits"


def portrait(id: str) -> str:
    """SVG of the persona with that model id."""
    drawn = {path.stem: path for path in FOLDER.glob("*.svg")}
    return drawn[id].read_text(encoding="utf-8") if id in drawn else initial(id)


def initial(id: str) -> str:
    """A letter on a colour of its own, the same for the same name."""
    letter = next((character for character in id if character.isalnum()), "?").upper()
    hue = hashlib.sha256(id.encode(errors="replace")).digest()[0] / 256
    red, green, blue = (round(255 * part) for part in colorsys.hls_to_rgb(hue, 0.36, 0.45))
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 96 96"><rect width="96" height="96" '
        f'fill="rgb({red},{green},{blue})"/><text x="48" y="65" font-family="system-ui, sans-serif" font-size="48" font-weight="600" '
        f'text-anchor="middle" fill="#fff">{escape(letter)}</text></svg>\n'
    )
