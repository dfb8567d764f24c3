"""Cards and books as other programs write them, made here."""

import base64
import json
import struct
import zlib
from typing import Any

V1 = {
    "name": "Ada",
    "description": "{{char}} computes; {{user}} asks.",
    "personality": "exact, dry",
    "scenario": "In a library.",
    "first_mes": "Good day, {{user}}.",
    "mes_example": "<START>\n{{user}}: What is two and two?\n{{char}}: Four.\n<START>\n{{user}}: And three?\n{{char}}: Seven, then.",
}
EXTENSIONS: dict[str, Any] = {"depth_prompt": {"prompt": "ü", "depth": 4}, "x/y": [1, 2.50, None, {"deep": "✓"}]}
V2: dict[str, Any] = {
    "spec": "chara_card_v2",
    "spec_version": "2.0",
    "data": {
        **V1,
        "creator_notes": "Not for prompts.",
        "system_prompt": "{{original}} Be exact.",
        "post_history_instructions": "Answer in one sentence.",
        "alternate_greetings": ["Hello.", "You again, {{user}}?"],
        "tags": ["Maths", "History"],
        "creator": "me",
        "character_version": "1.1",
        "extensions": EXTENSIONS,
        "unheard_of": {"kept": True},
    },
}
V3: dict[str, Any] = {
    "spec": "chara_card_v3",
    "spec_version": "3.0",
    "data": {**V2["data"], "nickname": "Countess", "group_only_greetings": [], "assets": [], "source": ["made here"], "creation_date": 0},
}
BOOK: dict[str, Any] = {
    "name": "Library",
    "extensions": {},
    "entries": [
        {"keys": ["engine"], "content": "@@depth 2\nIt weighs four tons.", "extensions": {}, "enabled": True, "insertion_order": 1}
    ],
}


def source(card: Any, **style: Any) -> bytes:
    return json.dumps(card, ensure_ascii=False, **style).encode()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes, width: int = 2, height: int = 2) -> bytes:
    """A small picture with more chunks before its end."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress((b"\0" + b"\x7f" * 2) * 2)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + b"".join(chunks) + chunk(b"IEND", b"")


def text(keyword: str, card: bytes) -> bytes:
    return chunk(b"tEXt", keyword.encode() + b"\0" + base64.b64encode(card))
