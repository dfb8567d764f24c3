"""What of a card goes into prompts, as SillyTavern puts it together: its texts with their macros replaced, its examples as exchanges.

creator_notes, tags, creator and character_version never do (V2, V3).
"""

import hashlib
import random
import re
from dataclasses import dataclass, replace
from datetime import datetime

from townhall.characters.cards import TEXTS, Card
from townhall.characters.errors import CardError
from townhall.characters.lorebook import Lorebook
from townhall.characters.macros import Macros, unknown

# what a card's {{original}} stands for, and what is said where it has no system prompt of its own
SYSTEM_PROMPT = "This is a conversation between {{char}} and {{user}}. {{char}} stays in character."
MAX_CHARACTERS = 400_000  # of all texts together; the largest windows of today hold as much
MAX_EXCHANGES = 32
MAX_LABEL = 40
PROMPTED = (
    *("description", "personality", "scenario", "first_mes", "mes_example", "system_prompt", "post_history_instructions"),
    "alternate_greetings",
)
VALUES = ("description", "personality", "scenario", "persona")
_START = re.compile(r"<START>", re.IGNORECASE)


@dataclass(frozen=True)
class CardPrompt:
    """`instructions` begin every prompt; `post_history_instructions` belong behind the conversation. `greetings` begin with first_mes."""

    name: str
    user: str
    instructions: str
    examples: tuple[tuple[str, str], ...]  # (the user's message, the reply)
    greetings: tuple[str, ...]
    post_history_instructions: str


def card_prompt(card: Card, where: str, user: str = "User", chat: str = "", now: datetime | None = None, fallback: str = "") -> CardPrompt:
    """A card's texts for prompts; CardError, which begins with `where`, for more than any model reads.

    {{random}} and {{roll}} draw by the card and `chat`: a conversation begins the same way each time it is opened. `fallback` is the name
    of a card that has none.
    """
    length = sum(len(text) for key in PROMPTED for text in ([card.text(key)] if key in TEXTS else card.texts(key)))
    if length > MAX_CHARACTERS:
        raise CardError(f"{where} has {length:,} characters for the prompt, more than {MAX_CHARACTERS:,}; shorten it")
    name = label(card.text("nickname")) or label(card.name) or label(fallback) or "Character"
    user = user if name.lower() != user.lower() else "You" if name.lower() != "you" else "User"
    seed = hashlib.sha256(card.source + chat.encode()).hexdigest()
    macros = Macros(name, user, chat or seed, random.Random(seed), now)
    macros = replace(macros, values={key: plain(macros.expand(card.text(key))) for key in VALUES[:3]} | {"persona": ""})

    def text(key: str, **values: str) -> str:
        return plain(replace(macros, values={**macros.values, **values}).expand(card.text(key)))

    original = macros.expand(SYSTEM_PROMPT)
    exchanges, others = examples(text("mes_example"), (name, label(card.name)), user)
    parts = [
        text("system_prompt", original=original) or original,
        text("description"),
        f"{name}'s personality: {personality}" if (personality := text("personality")) else "",
        f"Scenario: {scenario}" if (scenario := text("scenario")) else "",
        f"How {name} talks:\n{others}" if others else "",
    ]
    greetings = (text("first_mes"), *(plain(macros.expand(greeting)) for greeting in card.texts("alternate_greetings")))
    return CardPrompt(
        name=name,
        user=user,
        instructions="\n".join(part for part in parts if part),
        examples=exchanges,
        greetings=tuple(greeting for greeting in greetings if greeting),
        post_history_instructions=text("post_history_instructions", original=""),
    )


def examples(text: str, names: tuple[str, ...], user: str) -> tuple[tuple[tuple[str, str], ...], str]:
    """mes_example, macros replaced, as exchanges, and what of it is none: lines of the character that answer nothing.

    A block begins at <START>; a line that begins with a name and a colon begins that one's message, any other goes on with the last.
    """
    cues = {f"{user}:".lower(): "user"} | {f"{name}:".lower(): "reply" for name in names if name}
    exchanges: list[tuple[str, str]] = []
    others: list[str] = []
    for block in _START.split(text):
        said: list[tuple[str, list[str]]] = []
        for line in block.strip().splitlines():
            cue = next((cue for cue in cues if line.lstrip().lower().startswith(cue)), "")
            line = line.strip()[len(cue) :].strip() if cue else line.rstrip()
            if cue and not (said and said[-1][0] == cues[cue]):
                said.append((cues[cue], [line]))
            elif said:
                said[-1][1].append(line)
            elif line:
                said.append(("reply", [line]))
        asked = ""
        for speaker, lines in said:
            words = "\n".join(lines).strip()
            if speaker == "user":
                asked = words
            elif asked and words and len(exchanges) < MAX_EXCHANGES:
                exchanges.append((asked, words))
                asked = ""
            elif words:
                others.append(words)
    return tuple(exchanges), "\n".join(others)


def unknown_macros(card: Card) -> list[str]:
    """Macros that stay in the prompt as they are written."""
    found = dict.fromkeys(name for key in PROMPTED if key in TEXTS for name in unknown(card.text(key), VALUES))
    found |= dict.fromkeys(name for text in card.texts("alternate_greetings") for name in unknown(text, VALUES))
    return list(found)


def lorebook(card: Card, where: str) -> Lorebook | None:
    """The card's own lorebook; LorebookError where it is broken."""
    return Lorebook.from_values(card.book, card.name or "lorebook", where) if card.book else None


def label(text: str) -> str:
    """A name that can stand before a colon in a log."""
    return " ".join(plain(text).replace(":", " ").split())[:MAX_LABEL].strip()


def plain(text: str) -> str:
    """`text` as a model and a terminal may have it: no control characters, no halves of characters, no carriage returns."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.isprintable():
        text = "".join(c if c.isprintable() or c in "\n\t" or c.isspace() and c >= " " else _instead(c) for c in text)
    return text.strip()


def _instead(character: str) -> str:
    """Characters that join emoji or turn the direction of text are kept; halves of one become a mark, the others go."""
    if "\ud800" <= character <= "\udfff":
        return "\N{REPLACEMENT CHARACTER}"
    return character if character in "\u200c\u200d\u200e\u200f\ufe0f\u00ad" else ""
