"""CHARX: a zip with `card.json` and pictures (Character Card V3). A few files of it are read, within bounds."""

import struct
import zipfile
import zlib
from dataclasses import dataclass, field
from typing import IO, Any

from app.models.llama.sanitize import clipped
from townhall.characters import bounded_json, card_knowledge
from townhall.characters.errors import CardError
from townhall.characters.png_chunks import picture_suffix

MAX_FILES, MAX_DIRECTORY = 10_000, 4 << 20
MAX_ICON = 64 << 20
END = b"PK\x05\x06"
ZIP64 = b"PK\x06\x07"
TAIL = 65_536 + 22 + 20  # the end of the directory, its comment, a locator of zip64's before it
BROKEN = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, ValueError, struct.error)


@dataclass(frozen=True)
class CharxFile:
    """The JSON, the character's main picture or b"", and what is not kept."""

    card: bytes
    icon: bytes
    documents: dict[str, bytes] = field(default_factory=dict)  # that the card brings to be searched, by names of ours
    notes: list[str] = field(default_factory=list)


def is_zip(start: bytes, file: IO[bytes]) -> bool:
    """Is it a zip, perhaps behind a picture? Leaves the file behind `start`."""
    if start.startswith(b"PK"):
        return True
    if not start.startswith(b"\xff\xd8\xff"):  # some frontends put the zip behind a JPEG
        return False
    tail = _tail(file)
    file.seek(len(start))
    return END in tail


def read(file: IO[bytes], where: str) -> CharxFile:
    """CardError for a zip that is broken, encrypted or a bomb, or has no card."""
    _check_directory(_tail(file), where)
    try:
        with zipfile.ZipFile(file) as archive:
            names = {info.filename: info for info in archive.infolist()}
            if "card.json" not in names:
                raise CardError(f"{where} is a zip without card.json, so it is no character")
            card = _member(archive, names["card.json"], bounded_json.MAX_BYTES, where)
            values = bounded_json.parse(card, where)
            icon, data = _icon(values), values.get("data") if isinstance(values, dict) else None
            picture = _member(archive, names[icon], MAX_ICON, where) if icon in names else b""
            if not picture_suffix(picture):
                picture = b""
            folders = card_knowledge.folders_of(data) if isinstance(data, dict) else ()
            documents = card_knowledge.chosen(names, folders, lambda name: _document(archive, names[name], where)) if folders else {}
            left = sum(not info.is_dir() for info in names.values()) - 1 - bool(picture) - len(documents)
    except BROKEN as error:
        raise CardError(f"{where} is a zip that cannot be read: {clipped(error) or 'it is cut short'}; export it anew") from error
    notes = [f"{left} other file{'s' if left > 1 else ''} of the archive {'are' if left > 1 else 'is'} not kept"] if left else []
    return CharxFile(card, picture, documents, notes)


def _document(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> bytes | None:
    """None for one that is too large."""
    if info.file_size > card_knowledge.MAX_DOCUMENT:
        return None
    return _member(archive, info, card_knowledge.MAX_DOCUMENT, where)


def _tail(file: IO[bytes]) -> bytes:
    size = file.seek(0, 2)
    file.seek(max(0, size - TAIL))
    return file.read(TAIL)


def _check_directory(tail: bytes, where: str) -> None:
    """Before zipfile makes objects of millions of entries."""
    at = tail.rfind(END)
    if at < 0 or len(tail) < at + 22:
        raise CardError(f"{where} is a zip that is cut short; fetch it again")
    files, size = struct.unpack_from("<HI", tail, at + 10)
    if ZIP64 in tail or files > MAX_FILES or size > MAX_DIRECTORY:
        raise CardError(f"{where} is a zip of more than {MAX_FILES:,} files or 4 GB; a character has a few")


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int, where: str) -> bytes:
    if info.flag_bits & 1:
        raise CardError(f"{where}: {info.filename} is encrypted; export it without a password")
    with archive.open(info) as member:
        content = member.read(most + 1)
    if len(content) > most:
        raise CardError(f"{where}: {info.filename} is larger than {most >> 20} MB; a character is a few pages and a picture")
    return content


def _icon(values: Any) -> str:
    """The archive's name of the main picture: `embeded://…` (spelled so in the specification)."""
    data = values.get("data") if isinstance(values, dict) else None
    assets = data.get("assets") if isinstance(data, dict) else None
    icons = [asset for asset in assets if isinstance(asset, dict) and asset.get("type") == "icon"] if isinstance(assets, list) else []
    for icon in sorted(icons, key=lambda asset: asset.get("name") != "main"):
        scheme, separator, name = str(icon.get("uri")).partition("://")
        if separator and scheme in ("embeded", "embedded"):
            return name
    return ""
