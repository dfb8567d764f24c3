"""Character cards: Tavern V1, V2 (chara_card_v2) and V3 (chara_card_v3), kept byte for byte as they came.

Specifications: github.com/malfoyslastname/character-card-spec-v2 and github.com/kwaroran/character-card-spec-v3.
"""

from dataclasses import dataclass
from typing import Any

from townhall.characters import bounded_json
from townhall.characters.decorators import without_decorators
from townhall.characters.errors import CardError

V2, V3 = "chara_card_v2", "chara_card_v3"
V1_TEXTS = ("name", "description", "personality", "scenario", "first_mes", "mes_example")
V2_TEXTS = ("creator_notes", "system_prompt", "post_history_instructions", "creator", "character_version")
TEXTS = (*V1_TEXTS, *V2_TEXTS, "nickname")
LISTS = ("alternate_greetings", "group_only_greetings", "tags", "source")
V3_ONLY = (
    *("nickname", "assets", "creator_notes_multilingual", "source", "group_only_greetings"),
    *("creation_date", "modification_date"),
)
BACKFILLED = (
    "This character card is Character Card V3, but it is loaded as a Character Card V2. "
    "Please use a Character Card V3 compatible application to use this character card properly."
)


@dataclass(frozen=True)
class Card:
    """`source` is the JSON as it was written, `values` what it says."""

    source: bytes
    values: dict[str, Any]

    @classmethod
    def from_json(cls, source: bytes, where: str) -> "Card":
        """CardError, which begins with `where`, for what is no card, or one whose known fields are of other types."""
        values = bounded_json.parse(source, where)
        if not isinstance(values, dict):
            raise CardError(f"{where} holds JSON, but no character card: a card is an object with a name")
        if values.get("spec") == "lorebook_v3" or isinstance(values.get("entries"), dict | list):
            raise CardError(f"{where} is a lorebook, which belongs to a character but is none; import the character's card")
        card = cls(source, values)
        if card.version > 1 and not isinstance(values.get("data"), dict):
            raise CardError(f"{where} says that it is a {values['spec']}, but has no data; export it anew where it was made")
        if card.version == 1 and ("name" not in values or not any(key in values for key in V1_TEXTS[1:])):
            raise CardError(f"{where} holds JSON, but no character card: it has neither spec and data nor a name and a description")
        card._check(where)
        return card

    @property
    def version(self) -> int:
        """1, 2 or 3; a newer one is read as 3."""
        spec = self.values.get("spec")
        return 2 if spec == V2 else 3 if isinstance(spec, str) else 1

    @property
    def data(self) -> dict[str, Any]:
        """Where the fields stand."""
        return self.values if self.version == 1 else self.values["data"]

    @property
    def name(self) -> str:
        return self.text("name").strip()

    def text(self, key: str) -> str:
        """A field that is text; "" where it is absent or null."""
        return self.data.get(key) or ""

    def texts(self, key: str) -> tuple[str, ...]:
        """A field that is a list of texts."""
        return tuple(self.data.get(key) or ())

    @property
    def book(self) -> dict[str, Any] | None:
        """The character_book, as it stands in the JSON."""
        book = self.data.get("character_book") if self.version > 1 else None
        return book or None

    @property
    def newer(self) -> bool:
        """Made for a specification that is not known here: what is new in it is kept and not used."""
        try:
            return self.version == 3 and (self.values["spec"] != V3 or float(self.values.get("spec_version", 3)) > 3)
        except (TypeError, ValueError):
            return True

    def changed(self, fields: dict[str, Any], where: str) -> "Card":
        """The card with other fields; the same card where they are what they were. CardError as for a card that is read."""
        if all(self.data.get(key) == value for key, value in fields.items()):
            return self
        data = self.data | fields
        values = data if self.version == 1 else self.values | {"data": data}
        if self.version > 1:  # many cards repeat V1's fields beside V2's
            values |= {key: value for key, value in fields.items() if key in V1_TEXTS and key in self.values}
        return Card.from_json(bounded_json.dump(values, self.source), where)

    def as_v3(self) -> bytes:
        """The card as V3 JSON: its source where it is one already."""
        if self.version == 3:
            return self.source
        data: dict[str, Any] = dict.fromkeys(V1_TEXTS + V2_TEXTS, "") | {"alternate_greetings": [], "tags": [], "extensions": {}}
        data |= {"group_only_greetings": []}
        outer = {key: value for key, value in self.values.items() if key not in ("spec", "spec_version", "data")}
        if self.version == 1:
            data |= {key: self.text(key) for key in V1_TEXTS}
            others = {key: value for key, value in outer.items() if key not in V1_TEXTS}
            data["extensions"] = {"tavern_v1": others} if others else {}
            outer = {}
        else:
            data |= {key: value for key, value in self.data.items() if value is not None or key not in data}
        return bounded_json.dump({"spec": V3, "spec_version": "3.0", "data": data, **outer}, self.source)

    def as_v2(self) -> bytes:
        """For the PNG chunk `chara`: its source unless it is V3, then what V2 knows of it, with V3's warning in the creator's notes."""
        if self.version < 3:
            return self.source
        data = {key: value for key, value in self.data.items() if key not in V3_ONLY}
        data["creator_notes"] = f"{BACKFILLED}\n\n{self.text('creator_notes')}".strip()
        if (book := self.book) and isinstance(entries := book.get("entries"), list):
            data["character_book"] = book | {"entries": [_without_decorators(entry) for entry in entries]}
        outer = {key: value for key, value in self.values.items() if key not in ("spec", "spec_version", "data")}
        return bounded_json.dump({"spec": V2, "spec_version": "2.0", "data": data, **outer}, self.source)

    def _check(self, where: str) -> None:
        data = self.data
        for key in TEXTS:
            if not isinstance(data.get(key), str | None):
                raise CardError(f"{where}: {key!r} must be text, not {_kind(data[key])}")
        for key in LISTS if self.version > 1 else ():
            value = data.get(key)
            if value and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
                raise CardError(f"{where}: {key!r} must be a list of texts")
        if not isinstance(data.get("extensions"), dict | None) and self.version > 1:
            raise CardError(f"{where}: 'extensions' must be an object, not {_kind(data['extensions'])}")
        if self.book is not None and not isinstance(self.book, dict):
            raise CardError(f"{where}: 'character_book' must be an object, not {_kind(self.book)}")


def _without_decorators(entry: Any) -> Any:
    if isinstance(entry, dict) and isinstance(entry.get("content"), str):
        return entry | {"content": without_decorators(entry["content"])}
    return entry


def _kind(value: Any) -> str:
    kinds = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return kinds.get(type(value), "text")
