"""Messages of Discord's as lines of a talk: who said what, by display name."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

LONGEST_NAME = 32  # characters, as on Discord
NO_NAME = "Guest"


@dataclass(frozen=True)
class SpokenLine:
    """What a person said; `name` is "" where only one can be meant."""

    name: str
    text: str


def display_name(name: str, persona: str) -> str:
    """A name that can stand before a colon in a prompt: one line, no colon, not the persona's own."""
    name = " ".join(re.sub(r"[\x00-\x1f\x7f:\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]", " ", name).split())[:LONGEST_NAME].strip()
    if not name:
        return NO_NAME
    return f"{name} (guest)" if name.casefold() == persona.casefold() else name


def as_turn(lines: Iterable[SpokenLine], names: Iterable[str]) -> str:
    """The user's turn of a prompt that these lines make.

    A line within a message that would read as the beginning of another's, of those in `names`, is indented: no message contains
    another's words.
    """
    known = {name.casefold() for name in names}

    def indented(line: str) -> str:
        return f" {line}" if line.partition(":")[0].strip().casefold() in known and ":" in line else line

    def laid_out(line: SpokenLine) -> str:
        first, *rest = line.text.split("\n")
        first = f"{line.name}: {first}" if line.name else indented(first)
        return "\n".join([first, *map(indented, rest)])

    return "\n".join(map(laid_out, lines))


def without_cue(text: str, name: str) -> str:
    """A reply without the name that it begins with where a model writes it itself."""
    return re.sub(rf"^\s*{re.escape(name)}:[ \t]*", "", text, count=1, flags=re.IGNORECASE)
