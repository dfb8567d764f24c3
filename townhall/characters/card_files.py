"""The files that cards come in and go out as: JSON, PNG with the chunks `chara` and `ccv3`, CHARX. What a file is, its content says."""

import base64
import binascii
import re
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from townhall.characters import charx, png_chunks
from townhall.characters.bounded_json import MAX_BYTES
from townhall.characters.cards import Card
from townhall.characters.errors import CardError

MAX_PICTURE = 64 << 20
OURS = ("chara", "ccv3")
PNG = png_chunks.SIGNATURE
_BASE64_SPACE = re.compile(rb"\s+")


@dataclass(frozen=True)
class CardFile:
    """A card with its picture: a PNG without the card's chunks, another picture of a CHARX file, or b"". `notes` say what is not kept."""

    card: Card
    portrait: bytes = b""
    notes: list[str] = field(default_factory=list)
    documents: dict[str, bytes] = field(default_factory=dict)  # of a CHARX file, to be searched


def read(path: Path, where: str = "") -> CardFile:
    """CardError, in one sentence that begins with `where`, for a file that holds no card; at most 64 MB of it are read."""
    where = where or f"card {path}"
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise CardError(f"{where} is not a file")
        with path.open("rb") as file:
            start = file.read(4096)
            if charx.is_zip(start, file):
                found = charx.read(file, where)
                return CardFile(Card.from_json(found.card, where), found.icon, found.notes, found.documents)
            start += file.read(MAX_PICTURE + 1 - len(start))
    except OSError as error:
        raise CardError(f"{where} cannot be read: {error.strerror or error}") from error
    if len(start) > MAX_PICTURE:
        raise CardError(f"{where} is larger than {MAX_PICTURE >> 20} MB; save its picture smaller")
    return from_bytes(start, where)


def from_bytes(content: bytes, where: str) -> CardFile:
    """A card from a PNG or a JSON file that is in memory."""
    if content.startswith(png_chunks.SIGNATURE):
        return _from_png(content, where)
    if not content.strip():
        raise CardError(f"{where} is empty")
    if content[:64].removeprefix(b"\xef\xbb\xbf").lstrip()[:1] not in (b"{", b"["):
        raise CardError(f"{where} is no card: it is neither JSON nor a PNG nor a CHARX file")
    return CardFile(Card.from_json(content, where))


def without_card(picture: bytes) -> bytes:
    """A picture for a portrait: of a PNG the chunks that hold a card are left out. CardError for a broken PNG."""
    if not picture.startswith(png_chunks.SIGNATURE):
        return picture
    return png_chunks.join(chunk for chunk in png_chunks.split(picture, "the picture") if chunk.keyword not in OURS)


def as_png(card: Card, portrait: bytes) -> bytes:
    """`portrait` with the card as V2 in `chara` and as V3 in `ccv3`; a plain picture where it is no PNG."""
    if not portrait.startswith(png_chunks.SIGNATURE):
        portrait = png_chunks.plain_picture(zlib.crc32(card.name.encode(errors="replace")))
    chunks = [chunk for chunk in png_chunks.split(portrait, "the portrait") if chunk.keyword not in OURS]
    texts = [png_chunks.text_chunk("chara", base64.b64encode(card.as_v2())), png_chunks.text_chunk("ccv3", base64.b64encode(card.as_v3()))]
    return png_chunks.join([*chunks[:-1], *texts, chunks[-1]])


def _from_png(content: bytes, where: str) -> CardFile:
    chunks = png_chunks.split(content, where)
    found = {key: next((chunk for chunk in chunks if chunk.keyword == key), None) for key in OURS}
    if not any(found.values()):
        raise CardError(f"{where} is a picture without a character in it; fetch the original, for a picture saved anew loses its card")
    cards = {key: Card.from_json(_decoded(chunk, where), where) for key, chunk in found.items() if chunk}
    v2, v3 = cards.get("chara"), cards.get("ccv3")
    # where V3 was made of V2 and says nothing more, the original is the card
    card = v2 if v2 and (v3 is None or Card.from_json(v2.as_v3(), where).values == v3.values) else v3
    assert card is not None
    return CardFile(card, png_chunks.join(chunk for chunk in chunks if chunk.keyword not in OURS))


def _decoded(chunk: png_chunks.PNGChunk, where: str) -> bytes:
    text = png_chunks.text_of(chunk, where)
    if text.lstrip()[:1] == b"{":  # some tools leave base64 out
        return text
    text = _BASE64_SPACE.sub(b"", text) if any(space in text for space in (b"\n", b" ", b"\r", b"\t")) else text
    if len(text) > MAX_BYTES * 4 // 3 + 4:
        raise CardError(f"{where}: the text {chunk.keyword!r} is larger than {MAX_BYTES >> 20} MB; a character is a few pages")
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise CardError(f"{where}: the text {chunk.keyword!r} is not base64 ({error}); fetch it again") from error
