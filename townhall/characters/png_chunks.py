"""PNG as a list of chunks (PNG specification, third edition): text is read and written, pixels are handed on undecoded."""

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from townhall.characters.errors import CardError

PICTURES = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpg", b"RIFF": "webp", b"GIF8": "gif"}
SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS = 65_536
MAX_SIDE, MAX_PIXELS = 20_000, 100_000_000
MAX_TEXT = 24 << 20  # of one text chunk, inflated: 16 MB of JSON in base64 and a little


@dataclass(frozen=True)
class PNGChunk:
    """`data` is a view into the file."""

    kind: bytes
    data: memoryview

    @property
    def keyword(self) -> str:
        """What a text chunk is about, lower case; "" for another chunk."""
        if self.kind not in (b"tEXt", b"zTXt", b"iTXt"):
            return ""
        return bytes(self.data[:80]).split(b"\0")[0].decode("latin-1").lower()


def split(png: bytes, where: str) -> list[PNGChunk]:
    """The chunks up to IEND; CardError for what is no PNG, cut short, or of a size that no picture of a character has."""
    view, at, chunks = memoryview(png), len(SIGNATURE), list[PNGChunk]()
    if png[: len(SIGNATURE)] != SIGNATURE:
        raise CardError(f"{where} is not a PNG picture")
    while not chunks or chunks[-1].kind != b"IEND":
        if len(view) < at + 12:
            raise CardError(f"{where} is cut short: the picture has no end; fetch it again")
        length, kind = struct.unpack_from(">I4s", view, at)
        if length > len(view) - at - 12:
            raise CardError(f"{where} is cut short: a chunk of {length:,} bytes has {max(0, len(view) - at - 12):,}; fetch it again")
        chunk = PNGChunk(kind, view[at + 8 : at + 8 + length])
        if chunk.keyword and _checksum(chunk) != int.from_bytes(view[at + 8 + length : at + 12 + length]):
            raise CardError(f"{where}: the text {chunk.keyword!r} is damaged; fetch it again")
        chunks.append(chunk)
        at += 12 + length
        if len(chunks) > MAX_CHUNKS:
            raise CardError(f"{where} has more than {MAX_CHUNKS:,} chunks; save the picture anew")
    if chunks[0].kind != b"IHDR" or len(chunks[0].data) != 13:
        raise CardError(f"{where} does not begin as a PNG picture does; save it anew")
    width, height = struct.unpack_from(">II", chunks[0].data)
    if not 0 < width <= MAX_SIDE or not 0 < height <= MAX_SIDE or width * height > MAX_PIXELS:
        raise CardError(f"{where} is a picture of {width:,} × {height:,} pixels; {MAX_PIXELS:,} in all are the most")
    return chunks


def join(chunks: Iterable[PNGChunk]) -> bytes:
    """A PNG of these chunks."""
    return SIGNATURE + b"".join(part for chunk in chunks for part in _framed(chunk))


def text_chunk(keyword: str, text: bytes) -> PNGChunk:
    """A tEXt chunk."""
    return PNGChunk(b"tEXt", memoryview(keyword.encode("latin-1") + b"\0" + text))


def text_of(chunk: PNGChunk, where: str) -> bytes:
    """What a tEXt, zTXt or iTXt chunk says, inflated within bounds; CardError for one that is broken or too large."""
    if len(chunk.data) > MAX_TEXT:
        raise _too_large(chunk.keyword, where)
    rest = bytes(chunk.data).partition(b"\0")[2]
    packed = chunk.kind == b"zTXt"
    if packed:
        rest = rest[1:]  # the method, of which there is one
    elif chunk.kind == b"iTXt":
        packed, (_, _, rest) = rest[:1] == b"\1", rest[2:].partition(b"\0")  # language tag
        rest = rest.partition(b"\0")[2]  # translated keyword
    return _inflate(rest, chunk.keyword, where) if packed else rest


def picture_suffix(picture: bytes) -> str:
    """How a file with that picture is to end; "" for none that is known."""
    return next((suffix for magic, suffix in PICTURES.items() if picture.startswith(magic)), "")


def plain_picture(hue: int) -> bytes:
    """A small PNG of one colour, where a character has no picture of its own."""
    shade = bytes((96 + (hue * part) % 96) for part in (1, 7, 13))
    header = PNGChunk(b"IHDR", memoryview(struct.pack(">IIBBBBB", 256, 384, 8, 2, 0, 0, 0)))
    pixels = PNGChunk(b"IDAT", memoryview(zlib.compress((b"\0" + shade * 256) * 384, 9)))
    return join([header, pixels, PNGChunk(b"IEND", memoryview(b""))])


def _inflate(packed: bytes, keyword: str, where: str) -> bytes:
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(packed, MAX_TEXT)
    except zlib.error as error:
        raise CardError(f"{where}: the text {keyword!r} cannot be unpacked ({error}); fetch it again") from error
    if inflater.unconsumed_tail:
        raise _too_large(keyword, where)
    return text


def _too_large(keyword: str, where: str) -> CardError:
    return CardError(f"{where}: the text {keyword!r} is larger than {MAX_TEXT >> 20} MB; a character is a few pages")


def _framed(chunk: PNGChunk) -> Iterator[bytes | memoryview]:
    yield struct.pack(">I4s", len(chunk.data), chunk.kind)
    yield chunk.data
    yield struct.pack(">I", _checksum(chunk))


def _checksum(chunk: PNGChunk) -> int:
    return zlib.crc32(chunk.data, zlib.crc32(chunk.kind))
