"""What a card brings to be searched: libraries of the user's that it names, and documents in its CHARX file.

`extensions.townhall.knowledge` is a list: the name of a library counts where the user has one of that name, and `embeded://FOLDER/` is a
folder of the card's own archive, whose .md and .txt files are kept with the character at its import. A card names no other place: a path is
no name of a library, and what it names is opened only where it is there already.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from townhall.characters.cards import Card

MAX_NAMES = 16
MAX_DOCUMENTS, MAX_DOCUMENT, MAX_BYTES = 64, 1 << 20, 8 << 20
SUFFIXES = (".md", ".txt")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")  # of a library
_FOLDER = re.compile(r"embedd?ed://([^/\\]+(?:/[^/\\]+)*)/")  # spelled with one d in the specification of CHARX


def names_of(card: Card) -> tuple[str, ...]:
    """The libraries that it names."""
    return tuple(entry for entry in _entries(card.data) if _NAME.fullmatch(entry))


def folders_of(data: Mapping[str, Any]) -> tuple[str, ...]:
    """The folders of its archive, with the slash at their end, from a card's data."""
    return tuple(f"{found[1]}/" for entry in _entries(data) if (found := _FOLDER.fullmatch(entry)))


def documents_of(card: Card) -> bool:
    """Does it bring documents of its own?"""
    return bool(folders_of(card.data))


def there(card: Card, documents: Path | None) -> tuple[str, ...]:
    """Of what it names, what can be searched: libraries that exist, and the folder `documents` where the character's are kept there."""
    names: tuple[str, ...] = ()
    if wanted := names_of(card):
        from townhall.library.libraries import library_path

        names = tuple(name for name in wanted if library_path(name).exists())
    kept = documents is not None and documents_of(card) and documents.is_dir()
    return (*names, str(documents)) if kept else names


def missing(card: Card) -> list[str]:
    """The libraries that it names and the user has not."""
    return [name for name in names_of(card) if name not in there(card, None)]


def chosen(files: Iterable[str], folders: tuple[str, ...], read: Callable[[str], bytes | None]) -> dict[str, bytes]:
    """Documents of an archive by names that are ours: from these folders, as many and as large as the bounds allow.

    `read` gives a file's content, None where it is larger than MAX_DOCUMENT."""
    found: dict[str, bytes] = {}
    left = MAX_BYTES
    for file in files:
        suffix = next((suffix for suffix in SUFFIXES if file.lower().endswith(suffix)), "")
        if not suffix or not file.startswith(folders) or len(found) == MAX_DOCUMENTS:
            continue
        content = read(file)
        if content is None or len(content) > left:
            continue
        left -= len(content)
        stem = "-".join(re.findall(r"[A-Za-z0-9]+", file.rsplit("/", 1)[-1][: -len(suffix)]))[:40] or "document"
        found[f"{len(found) + 1:02}-{stem}{suffix}"] = content
    return found


def _entries(data: Mapping[str, Any]) -> list[str]:
    extensions = data.get("extensions")
    ours = extensions.get("townhall") if isinstance(extensions, dict) else None
    entries = ours.get("knowledge") if isinstance(ours, dict) else None
    return list(dict.fromkeys(entry for entry in entries if isinstance(entry, str)))[:MAX_NAMES] if isinstance(entries, list) else []
