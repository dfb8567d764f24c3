"""Adapters as flags, settings files and personas name them: [NAME=]PATH[:SCALE]."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from townhall.errors import ModelError

NONE = "none"  # no adapter, whatever the persona names
MOST_SCALE = 100.0


@dataclass(frozen=True)
class AdapterSpec:
    """An adapter's folder or file, what it is called, and by how much it counts."""

    path: Path
    scale: float = 1.0
    name: str = ""

    @classmethod
    def parse(cls, text: str, where: str = "--lora", folder: Path | None = None) -> "AdapterSpec":
        """A path that is relative is so to `folder`. ModelError for what is no such thing, and where there is no such path."""
        name, rest = "", text
        if (named := re.fullmatch(r"([A-Za-z0-9][\w.-]*)=(.+)", text)) and not Path(text).exists():
            name, rest = named[1], named[2]
        path, scale = rest, 1.0
        head, colon, tail = rest.rpartition(":")
        if colon and not Path(rest).exists():
            try:
                path, scale = head, float(tail)
            except ValueError:
                pass
        if not math.isfinite(scale) or abs(scale) > MOST_SCALE:
            raise ModelError(f"{where} {text} has a scale that is none; pass a number such as 0.5, at most {MOST_SCALE:g}")
        place = Path(path).expanduser()
        if folder is not None and not place.is_absolute():
            place = folder / place
        if not place.exists():
            raise ModelError(f"{where} {text}: {place} does not exist; pass the folder that peft or mlx-lm wrote, or a GGUF adapter")
        return cls(place, scale, name or place.stem if place.is_file() else name or place.resolve().name)

    def __str__(self) -> str:
        """As `parse` takes it, the path whole."""
        return f"{self.path.absolute()}:{self.scale!r}"


def parse_all(texts: Iterable[str], where: str = "--lora", folder: Path | None = None) -> tuple[AdapterSpec, ...]:
    """Those of a list; the word `none` stands for no adapter."""
    return tuple(AdapterSpec.parse(text, where, folder) for text in texts if text != NONE)


def scaled(specs: Sequence[AdapterSpec]) -> list[tuple[Path, float]]:
    """As `Llama.adapted` takes them."""
    return [(spec.path, spec.scale) for spec in specs]
