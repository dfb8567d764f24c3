"""What the command line and the server do with stored characters: make, change, duplicate, describe and search them."""

import functools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ext.tinygrad.errors import TownhallError
from townhall.characters import bounded_json, card_yaml, character_folder
from townhall.characters.card_prompt import card_prompt, lorebook, unknown_macros
from townhall.characters.cards import V1_TEXTS, V3_ONLY, Card
from townhall.characters.character_folder import StoredCharacter, id_of
from townhall.characters.errors import CardError
from townhall.persona import PERSONAS, Persona, load_persona, shipped_personas

MAX_SUMMARY = 300  # characters of a description in a list


@dataclass(frozen=True)
class CatalogEntry:
    """A character or persona as a list shows it; `fault` says why it cannot talk."""

    id: str
    kind: str  # "character": the user's own, "persona": ships with Townhall
    name: str
    description: str = ""
    creator: str = ""
    tags: tuple[str, ...] = ()
    version: int = 0  # of the card; 0: none
    greetings: int = 0
    lorebook_entries: int = 0
    fault: str = ""
    searched: str = ""  # all that a search looks at, case-folded

    def matches(self, words: str) -> bool:
        """Does every word of a search stand in its name, tags, creator or texts?"""
        return all(word in self.searched for word in words.casefold().split())


def list_entries(search: str = "") -> list[CatalogEntry]:
    """Shipped personas, then the user's characters; those that match a search."""
    shipped = shipped_personas()
    own = [name for name in character_folder.names() if name not in shipped]
    entries = [_persona_entry(name, _stamp(PERSONAS / f"{name}.yaml")) for name in shipped]
    entries += [_character_entry(name, _stamp(StoredCharacter(name, character_folder.default_folder() / name).card_path)) for name in own]
    return [entry for entry in entries if entry.matches(search)]


def _stamp(path: Path) -> tuple[str, int, int]:
    try:
        found = path.stat()
    except OSError:
        return str(path), 0, 0
    return str(path), found.st_mtime_ns, found.st_size


@functools.lru_cache(2048)
def _persona_entry(name: str, stamp: tuple[str, int, int]) -> CatalogEntry:
    """`stamp` changes with the file, so that it is read once."""
    try:
        persona = load_persona(name)
    except TownhallError as error:
        return CatalogEntry(name, "persona", name, fault=str(error), searched=name)
    searched = f"{name} {persona.name} {persona.instructions} {persona.greeting}".casefold()
    return CatalogEntry(
        name, "persona", persona.name, persona.description[:MAX_SUMMARY], greetings=int(bool(persona.greeting)), searched=searched
    )


@functools.lru_cache(2048)
def _character_entry(name: str, stamp: tuple[str, int, int]) -> CatalogEntry:
    stored = StoredCharacter(name, Path(stamp[0]).parent)
    try:
        card = stored.card()
        card_prompt(card, f"character {name}", fallback=name)
    except TownhallError as error:
        return CatalogEntry(name, "character", name, fault=str(error), searched=name)
    tags = card.texts("tags")
    texts = (name, card.name, card.text("nickname"), *tags, card.text("creator"), card.text("description"), card.text("creator_notes"))
    return CatalogEntry(
        id=name,
        kind="character",
        name=card.name or name,
        description=(card.text("description") or card.text("creator_notes"))[:MAX_SUMMARY],
        creator=card.text("creator"),
        tags=tags,
        version=card.version,
        greetings=greetings(card),
        lorebook_entries=lorebook_entries(card),
        searched=" ".join(texts).casefold(),
    )


def greetings(card: Card) -> int:
    """How many a conversation may begin with."""
    return len(card.texts("alternate_greetings")) + bool(card.text("first_mes"))


def lorebook_entries(card: Card) -> int:
    """How many entries its own lorebook has."""
    entries = card.book.get("entries") if card.book else None
    return len(entries) if isinstance(entries, list | dict) else 0


def new_id(name: str, where: str, remedy: str = "pass another name") -> str:
    """The id for a new character of that name; CardError where it has none, or one of a shipped persona."""
    if not (id := id_of(name)):
        raise CardError(f"{where} has no name that letters could be taken from; {remedy}")
    if id in shipped_personas():
        raise CardError(f"{where}: {id} is one of Townhall's own personas; {remedy}")
    return id


def free_id(name: str) -> str:
    """An id made of a name that no character and no persona has yet: ada, ada-2, …; CardError for a name without letters."""
    taken = {*shipped_personas(), *character_folder.names()}
    base = id_of(name) or "character"
    number = 1
    while (id := base if number == 1 else f"{base[: character_folder.MAX_ID - 1 - len(str(number))].rstrip('-')}-{number}") in taken:
        number += 1
    return id


def blank_card(name: str, where: str) -> Card:
    """A V3 card that says no more than a name."""
    now = int(time.time())
    blank = Card.from_json(bounded_json.dump({"name": name, "description": ""}), where)
    values = bounded_json.parse(blank.as_v3(), where)
    values["data"] |= {"extensions": {}, "creation_date": now, "modification_date": now}
    return Card.from_json(bounded_json.dump(values, b'{\n  "'), where)


def persona_card(persona: Persona, where: str) -> Card:
    """A shipped persona as a card: its description and style, examples and greeting."""
    examples = "".join(f"<START>\n{{{{user}}}}: {one.user}\n{{{{char}}}}: {one.reply}\n" for one in persona.examples)
    texts = {"description": persona.instructions, "mes_example": examples.rstrip(), "first_mes": persona.greeting}
    return blank_card(persona.name, where).changed(texts, where)


def edited(card: Card, fields: dict[str, Any], where: str, fallback: str) -> Card:
    """The card with these fields; the same card where nothing changes. CardError where it could not talk any more.

    A card that is given what its version does not have becomes a V3 card.
    """
    fields = {key: value for key, value in fields.items() if value or card.data.get(key)}  # what says nothing is not added
    if card.version == 1 and fields.keys() - set(V1_TEXTS) or card.version == 2 and fields.keys() & set(V3_ONLY):
        card = Card.from_json(card.as_v3(), where)
    changed = card.changed(fields, where)
    if changed is card:
        return card
    if changed.version == 3:
        changed = changed.changed({"modification_date": int(time.time())}, where)
    card_prompt(changed, where, fallback=fallback)
    lorebook(changed, where)
    return changed


def duplicate(name: str, wanted: str = "") -> StoredCharacter:
    """A copy of a character or shipped persona under a new id: that of the name `wanted`, else the next that is free."""
    where = f"character {wanted or name}"
    if name in shipped_personas():
        card, portrait = persona_card(load_persona(name), where), b""
    else:
        stored = character_folder.find(name)
        card, portrait = stored.card(), stored.portrait()
    if wanted:
        card = card.changed({"name": wanted}, where)
    return character_folder.add(card, portrait, new_id(wanted, where) if wanted else free_id(card.name or name))


def remarks(card: Card) -> list[str]:
    """What of a card is kept and not used."""
    newer = ["made for a newer specification than V3; what is new in it is kept and not used"] if card.newer else []
    unknown = unknown_macros(card)
    return newer + ([f"{macros(unknown)} not known, and left as written"] if unknown else [])


def macros(names: list[str]) -> str:
    """Their names in a sentence's beginning: "the macro {{x}} is", "the macros {{x}}, {{y}} are"."""
    from townhall.logbook.log_reader import printable

    shown = ", ".join("{{" + printable(name) + "}}" for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"the macro{'s' if len(names) > 1 else ''} {shown} {'are' if len(names) > 1 else 'is'}"


def known_fields(card: Card) -> dict[str, str | list[str]]:
    """Every field that an editor shows, those that a V1 card lacks as well."""
    return card_yaml.fields(Card.from_json(card.as_v3(), "the card"))
