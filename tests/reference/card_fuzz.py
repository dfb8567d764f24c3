"""Targets of the fuzzer that open character cards and lorebooks: JSON, PNG and CHARX, damaged or crafted."""

import base64
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.reference import fuzz_cases as cases
from tests.townhall.characters.making import BOOK, V1, V2, V3, chunk, png, source, text

Target = tuple[st.SearchStrategy[Any], Callable[[Any], object]]
DOCUMENTS = {"townhall": {"knowledge": ["kubla-khan", "embeded://notes/"]}}
CARDS: tuple[dict[str, Any], ...] = (
    V1,
    V2 | {"data": {**V2["data"], "character_book": BOOK}},
    V3 | {"data": {**V3["data"], "character_book": BOOK, "extensions": DOCUMENTS}},
)


def use(path: Path) -> None:
    """Whatever is done with a card before a model reads it: prompt, lorebook, what is written of it again."""
    from townhall.characters import card_files
    from townhall.characters.card_knowledge import documents_of, names_of
    from townhall.characters.card_prompt import card_prompt, lorebook, unknown_macros
    from townhall.characters.lorebook_scan import LoreScanner

    found = card_files.read(path)
    card = found.card
    card_prompt(card, "card", fallback="card"), unknown_macros(card), names_of(card), documents_of(card)
    if book := lorebook(card, "card"):
        LoreScanner([book])
    for written in (card.as_v2(), card.as_v3(), card_files.as_png(card, found.portrait)):
        card_files.from_bytes(written, "card")


def _tried(folder: Path, sound: bytes) -> Callable[[bytes], None]:
    path = folder / "card.bin"

    def run(data: bytes) -> None:
        path.write_bytes(data)
        use(path)

    run(sound)
    return run


def card_json(folder: Path) -> Target:
    """Values replaced, removed, renamed, or JSON broken as text."""
    return st.sampled_from(CARDS).flatmap(cases.changed), _tried(folder, source(CARDS[1]))


def card_png(folder: Path) -> Target:
    """A picture's bytes damaged, and sound pictures with a damaged card, whose checksum is right."""
    sound = [png(text("chara", source(CARDS[1])), text("ccv3", source(CARDS[2]))), png(text("chara", source(V1)))]
    kinds = st.sampled_from([(b"tEXt", b"chara\0"), (b"zTXt", b"chara\0\0"), (b"iTXt", b"ccv3\0\1\0\0\0"), (b"tEXt", b"ccv3\0")])
    inner = st.tuples(kinds, st.one_of(cases.damaged(base64.b64encode(source(CARDS[2]))), cases.changed(CARDS[1]).map(base64.b64encode)))
    crafted = inner.map(lambda made: png(chunk(made[0][0], made[0][1] + made[1])))
    return st.one_of(st.sampled_from(sound).flatmap(cases.damaged), crafted), _tried(folder, sound[0])


def card_charx(folder: Path) -> Target:
    """A zip's bytes damaged, above all its directory, and sound zips with a damaged card."""

    def packed(card: bytes) -> bytes:
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in (("card.json", card), ("notes/a.md", b"# A\n\nA note."), ("notes/../b.txt", b"b"), ("icon.png", png())):
                archive.writestr(name, content)
        return made.getvalue()

    sound = packed(json.dumps(CARDS[2]).encode())
    directory = sound.index(b"PK\1\2")
    damaged = st.one_of(cases.damaged(sound), cases.damaged(sound, directory), cases.changed(CARDS[2]).map(packed))
    return damaged, _tried(folder, sound)


TARGETS: tuple[Callable[[Path], Target], ...] = (card_json, card_png, card_charx)
