"""A card's texts as YAML, for an editor: paragraphs stand as they read."""

from pathlib import Path
from typing import Any

import yaml

from townhall.characters.bounded_json import MAX_BYTES
from townhall.characters.cards import V1_TEXTS, V2_TEXTS, Card
from townhall.characters.errors import CardError

HEADER = "# What the card says. Save and close: what is changed here is changed in the card, and nothing else.\n"
ORDER = (
    *("name", "nickname", "description", "personality", "scenario", "first_mes", "alternate_greetings", "mes_example", "system_prompt"),
    *("post_history_instructions", "creator_notes", "tags", "creator", "character_version"),
)
LISTS = ("alternate_greetings", "tags")


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks."""


def _as_block(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _as_block)


def fields(card: Card) -> dict[str, str | list[str]]:
    """What can be edited, in the order in which it is shown."""
    known = V1_TEXTS if card.version == 1 else (*V1_TEXTS, *V2_TEXTS, *LISTS, *(("nickname",) if card.version == 3 else ()))
    return {key: list(card.texts(key)) if key in LISTS else card.text(key) for key in ORDER if key in known}


def dump(card: Card) -> str:
    """The page that is edited."""
    return HEADER + yaml.dump(fields(card), Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=120)


def load(path: Path, card: Card) -> dict[str, Any]:
    """What the page says otherwise than the card. CardError with file and line."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise CardError(f"{path} is larger than {MAX_BYTES >> 20} MB")
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise CardError(f"{path}{line}: {error.problem or 'not valid YAML'}") from error
    except (yaml.YAMLError, ValueError, OSError, RecursionError) as error:
        raise CardError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    known = fields(card)
    if not isinstance(values, dict) or values.keys() - known.keys():
        raise CardError(f"{path} must have the keys {', '.join(known)}, and no others")
    for key, value in values.items():
        good = isinstance(value, list) and all(isinstance(item, str) for item in value) if key in LISTS else isinstance(value, str | None)
        if not good:
            raise CardError(f"{path}: {key!r} must be {'a list of texts' if key in LISTS else 'text; put it in quotes'}")
    given = {key: value or type(known[key])() for key, value in values.items()}
    return {key: value for key, value in given.items() if value != known[key]}
