"""The characters of the user: a folder each in the data folder, with the card's JSON as it came and its portrait."""

import contextlib
import difflib
import re
import shutil
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ext.tinygrad.cache_files import written
from townhall.characters import bounded_json
from townhall.characters.cards import Card
from townhall.characters.errors import CardError
from townhall.characters.png_chunks import picture_suffix

CARD = "card.json"
PORTRAIT = "portrait"
DOCUMENTS = "knowledge"
MAX_ID = 40


@dataclass(frozen=True)
class StoredCharacter:
    """`id` is what --personality takes."""

    id: str
    folder: Path

    @property
    def card_path(self) -> Path:
        return self.folder / CARD

    @property
    def documents(self) -> Path:
        """The folder of the documents that came with it; there is none where none did."""
        return self.folder / DOCUMENTS

    def card(self) -> Card:
        """CardError where the file was broken since."""
        try:
            with self.card_path.open("rb") as file:
                source = file.read(bounded_json.MAX_BYTES + 1)
        except OSError as error:
            raise CardError(f"character {self.id}: {self.card_path} cannot be read: {error.strerror or error}") from error
        return Card.from_json(source, f"character {self.id} ({self.card_path})")

    def portrait(self) -> bytes:
        """Its picture, b"" where it has none."""
        path = next(iter(sorted(self.folder.glob(f"{PORTRAIT}.*"))), None)
        return path.read_bytes() if path else b""


def default_folder() -> Path:
    """Where characters lie."""
    from platformdirs import user_data_dir

    return Path(user_data_dir("townhall")) / "characters"


def names() -> list[str]:
    """Ids of the characters that were imported or made."""
    try:
        return sorted(path.name for path in default_folder().iterdir() if id_of(path.name) == path.name and (path / CARD).is_file())
    except OSError:
        return []


def find(name: str) -> StoredCharacter:
    """By id, in any case; CardError names the nearest."""
    if (id := name.lower()) not in (known := names()):
        close = difflib.get_close_matches(id, known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        there = f"there {'is' if len(known) == 1 else 'are'} {', '.join(known)}" if known else "townhall character import FILE adds one"
        raise CardError(f"no character is called {name!r}: {hint}{there}")
    return StoredCharacter(id, default_folder() / id)


def id_of(name: str) -> str:
    """A name as an id: lower case, letters and digits, hyphens between; "" where there are none."""
    words = re.findall(r"[^\W_]+", unicodedata.normalize("NFC", name).lower())
    return "-".join(words)[:MAX_ID].rstrip("-")


def add(card: Card, portrait: bytes, id: str, replace: bool = False, documents: Mapping[str, bytes] | None = None) -> StoredCharacter:
    """Keep a character with its documents, by plain file names; CardError where one of that id is there and is not to be replaced."""
    stored = StoredCharacter(id, default_folder() / id)
    if stored.card_path.exists() and not replace:
        raise CardError(f"there is a character {id} already; pass --replace, or another name with --name")
    stored.folder.mkdir(parents=True, exist_ok=True)
    set_portrait(stored, portrait if picture_suffix(portrait) else b"")
    _set_documents(stored, documents or {})
    update(stored, card)  # last, for only a folder with a card is a character
    return stored


def _set_documents(stored: StoredCharacter, documents: Mapping[str, bytes]) -> None:
    shutil.rmtree(stored.documents, ignore_errors=True)
    for name, content in documents.items():
        stored.documents.mkdir(exist_ok=True)
        with written(stored.documents / name) as part:
            part.write_bytes(content)


def update(stored: StoredCharacter, card: Card) -> None:
    """Write the card of a character anew."""
    with written(stored.card_path) as part:
        part.write_bytes(card.source)


def set_portrait(stored: StoredCharacter, portrait: bytes) -> None:
    """Put a picture in the place of the character's; b"" takes it away. CardError for what is no picture."""
    suffix = picture_suffix(portrait)
    if portrait and not suffix:
        raise CardError(f"the portrait for {stored.id} is neither PNG, JPEG, WebP nor GIF; save it as one of these")
    old = list(stored.folder.glob(f"{PORTRAIT}.*"))
    if suffix:
        with written(stored.folder / f"{PORTRAIT}.{suffix}") as part:
            part.write_bytes(portrait)
    for path in old:
        if path.name != f"{PORTRAIT}.{suffix}":
            path.unlink(missing_ok=True)


def remove(stored: StoredCharacter) -> None:
    """Delete a character with its portrait. Its folder stays where it holds other files."""
    stored.card_path.unlink(missing_ok=True)  # first, for only a folder with a card is a character
    for path in [*stored.folder.glob(f"{PORTRAIT}.*"), stored.folder / "edit.yaml"]:
        path.unlink(missing_ok=True)
    _set_documents(stored, {})
    with contextlib.suppress(OSError):
        stored.folder.rmdir()
