"""Cards that mean harm: for each a file, and what `townhall character import` is to say of it.

As a program (`python -m tests.townhall.characters.hostile FILE`) it imports a card and, if it is taken, has its lorebook scanned, as a chat
does. With the name of a kind after it, it writes the file.
"""

import json
import os
import random
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.townhall.characters.making import V1, V2, V3, chunk, png, source, text

SCRIPT = "<script>alert(1)</script><img src=https://example.org/x.png onerror=alert(1)>\x1b]0;owned\x07"
SCRIPT += "{% for x in range(10**9) %}$(touch owned)`id`"
GIGABYTE = 1 << 30
V1_BEGUN = b'{"name": "x", "description": "", '
TAKEN = ""  # it is taken, and does no harm


def deflated(byte: bytes, count: int, raw: bool = True) -> bytes:
    """So many bytes, packed without having been in memory."""
    packer = zlib.compressobj(9, wbits=-15 if raw else 15)
    return b"".join([packer.compress(byte * (1 << 20)) for _ in range(count >> 20)] + [packer.flush()])


def zip_of(name: str, packed: bytes, size: int, method: int = 8, flags: int = 0, files: int = 1) -> bytes:
    """A zip whose directory states a size of the caller's for one file."""
    name_bytes = name.encode()
    fields = struct.pack("<HHHHHIIIHH", 20, flags, method, 0, 0, 0, len(packed), size, len(name_bytes), 0)
    local = b"PK\3\4" + fields + name_bytes + packed
    central = (b"PK\1\2" + b"\x14\0" + fields + struct.pack("<HHHII", 0, 0, 0, 0, 0) + name_bytes) * files
    return local + central + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, min(files, 65535), min(files, 65535), len(central), len(local), 0)


def many_files(path: Path) -> None:
    path.write_bytes(zip_of("card.json", b"{}", 2, 0, files=200_000))


def encrypted(path: Path) -> None:
    path.write_bytes(zip_of("card.json", b"x" * 40, 28, 0, flags=1))


def escaping(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../card.json", source(V3))
        archive.writestr("/etc/card.json", source(V3))


def sparse(size: int, start: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with path.open("wb") as file:
            file.write(start)
            file.truncate(size)

    return write


def pipe(path: Path) -> None:
    os.mkfifo(path)


def card(**fields: Any) -> bytes:
    return json.dumps({"spec": "chara_card_v3", "spec_version": "3.0", "data": V3["data"] | fields}).encode()


def entries(*listed: dict[str, Any], **book: Any) -> bytes:
    numbered = [{"insertion_order": at, "enabled": True, "extensions": {}, "content": "x", **entry} for at, entry in enumerate(listed)]
    return card(character_book={"name": "b", "extensions": {}, "entries": numbered, **book})


def chunk_that_claims(length: int) -> bytes:
    return png()[:-12] + struct.pack(">I4s", length, b"tEXt") + b"chara\0" + b"A" * 100


def wide_png(side: int) -> bytes:
    return png(text("chara", source(V2)), width=side, height=side)


def packed_text(kind: bytes, head: bytes) -> bytes:
    return png(chunk(kind, head + deflated(b"A", GIGABYTE // 4, raw=False)))


KINDS: dict[str, tuple[bytes | Callable[[], bytes] | Callable[[Path], None], str]] = {
    "zip bomb": (lambda: zip_of("card.json", deflated(b" ", GIGABYTE), GIGABYTE), "card.json is larger than 16 MB"),
    "zip that lies about a size": (lambda: zip_of("card.json", deflated(b" ", GIGABYTE), 100), "is a zip that cannot be read"),
    "zip of 200,000 files": (many_files, "is a zip of more than 10,000 files"),
    "zip64": (zip_of("card.json", b"{}", 2)[:-22] + b"PK\6\7" + bytes(16) + zip_of("card.json", b"{}", 2)[-22:], "is a zip of more than"),
    "zip with a password": (encrypted, "card.json is encrypted"),
    "zip that climbs out": (escaping, "is a zip without card.json"),
    "zip of an unknown method": (zip_of("card.json", b"{}", 2, method=99), "is a zip that cannot be read"),
    "zip cut short": (b"PK\3\4" + bytes(200), "is a zip that is cut short"),
    "100 MB chunk": (sparse(100 << 20, png()[:-12] + struct.pack(">I4s", 100 << 20, b"tEXt")), "is larger than 64 MB"),
    "chunk that claims 2 GB": (chunk_that_claims(0x7FFFFFFF), "is cut short: a chunk of 2,147,483,647 bytes"),
    "30 MB of base64": (lambda: png(chunk(b"tEXt", b"chara\0" + b"A" * (30 << 20))), "the text 'chara' is larger than 24 MB"),
    "zTXt bomb": (lambda: packed_text(b"zTXt", b"chara\0\0"), "the text 'chara' is larger than 24 MB"),
    "iTXt bomb": (lambda: packed_text(b"iTXt", b"ccv3\0\1\0\0\0"), "the text 'ccv3' is larger than 24 MB"),
    "a million chunks": (lambda: png(*[chunk(b"tEXt", b"")] * 1_000_000), "has more than 65,536 chunks"),
    "picture of 4 gigapixels": (wide_png(65_535), "is a picture of 65,535 × 65,535 pixels"),
    "chunk that is no base64": (png(chunk(b"tEXt", b"ccv3\0" + b"\xff" * 1000)), "the text 'ccv3' is not base64"),
    "file of 10 GB": (sparse(10 * GIGABYTE, b"{"), "is larger than 64 MB"),
    "a pipe": (pipe, "is not a file"),
    "UTF-16": (json.dumps(V1).encode("utf-16"), "is no card"),
    "ten million keys": (lambda: V1_BEGUN + b'"k":0,' * 10_000_000 + b'"a":0}', "holds 57 MB of JSON, more than 16 MB"),
    "three million keys": (lambda: V1_BEGUN + b'"":0,' * 3_300_000 + b'"a":0}', "more than 400,000 values"),
    "five million empty lists": (lambda: V1_BEGUN + b'"a": [' + b"[]," * 5_000_000 + b"0]}", "more than 400,000 values"),
    "a million brackets": (b"[" * 1_000_000, "more than 400,000 values"),
    "300 brackets": (b'{"name": "x", "description": ' + b"[" * 300 + b"]" * 300 + b"}", "is nested more than 100 deep"),
    "a text that is never closed": (lambda: b'{"name": "' + b'\\"' * 8_000_000, "more than 400,000 values"),
    "a number of a million digits": (b'{"name": "x", "description": ' + b"9" * 1_000_000 + b"}", "is not valid JSON: Exceeds the limit"),
    "infinity": (b'{"name": "x", "description": "", "a": -Infinity}', "-Infinity is no number of JSON"),
    "other types everywhere": (b'{"spec": "chara_card_v3", "data": {"name": {"a": [1]}, "tags": 7}}', "'name' must be text, not an object"),
    "script in every field": (
        lambda: card(**dict.fromkeys(V1, SCRIPT), creator_notes=SCRIPT, tags=[SCRIPT], nickname="\x1b[2J", alternate_greetings=[SCRIPT]),
        TAKEN,
    ),
    "halves of characters": (b'{"name": "\\ud83d\\u0000\\u202e", "description": "\\udc00\\ud800\\u0007"}', TAKEN),
    "8 MB of description": (lambda: card(description="word " * 1_600_000), "has 8,000,"),
    "100,000 greetings": (lambda: card(alternate_greetings=["Hello."] * 100_000), "has 600,"),
    "a name that multiplies": (
        lambda: card(nickname="x" * 100_000, description="{{char}}" * 40_000),
        "make more than 1,000,000 characters",
    ),
    "macros in macros": (lambda: card(description="{{random:" * 20_000 + "}}" * 20_000), "make more than 1,000,000 char"),
    "choices without end": (lambda: card(description="{{random:" + "a," * 100_000 + "}}"), "offers more than 10,000 choices"),
    "catastrophic regexes": (lambda: entries(*[{"keys": [f"/(a|aa)+${'|z' * (at % 9)}/"]} for at in range(5_000)]), TAKEN),
    "regexes that fill the memory": (entries(*[{"keys": ["/((((a{200}){200}){200}){200})/", "/(?:a{5000}){5000}/"]}] * 100), TAKEN),
    "a regex of a megabyte": (lambda: entries({"keys": ["/" + "(a|b)*" * 170_000 + "/"]}), TAKEN),
    "ten million keys of a lorebook": (lambda: entries({"keys": ["k"] * 500_000}), "more than 400,000 values"),
    "100,000 keys of one letter": (lambda: entries(*[{"keys": ["a"] * 10}] * 10_000), TAKEN),
    "50,000 entries": (lambda: card(character_book={"entries": [{}] * 50_000}), "has 50,000 lorebook entries"),
    "entries that fire each other": (
        lambda: entries(*[{"keys": [f"k{at}."], "content": f"k{at + 1}."} for at in range(10_000)], recursive_scanning=True),
        TAKEN,
    ),
    "entries of 16 MB in all": (lambda: entries(*[{"constant": True, "content": "{{char}} " * 11_000}] * 160), TAKEN),
    "orders and depths without end": (lambda: entries({"insertion_order": 1e308, "extensions": {"depth": 1e300, "sticky": 1e99}}), TAKEN),
}


def write(kind: str, path: Path) -> str:
    """The file, and what is to be said of it."""
    content: Any
    content, expected = KINDS[kind]
    if callable(content):
        content = content(path) if content.__code__.co_argcount else content()
    if isinstance(content, bytes):
        path.write_bytes(content)
    return expected


def main(path: str) -> int:
    from townhall.characters.card_prompt import lorebook
    from townhall.characters.character_folder import find
    from townhall.characters.lore_state import LoreState
    from townhall.characters.lorebook import Role
    from townhall.characters.lorebook_scan import LoreScanner
    from townhall.cli.main import main as townhall
    from townhall.persona import load_persona

    if code := townhall(["character", "import", path, "--name", "hostile"]):
        return code
    load_persona("hostile")
    if book := lorebook(find("hostile").card(), "x"):
        said: list[tuple[Role, str]] = [("user", "k0. " + "a" * 60 + "b"), ("assistant", "aab " * 2_000)]
        LoreScanner([book]).scan(said, LoreState(), len, random.Random(0))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]) if len(sys.argv) == 2 else bool(write(sys.argv[2], Path(sys.argv[1])) * 0))
