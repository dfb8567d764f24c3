"""What requests under /townhall/characters may say, and within which bounds."""

from typing import Annotated, Any, Literal

from pydantic import Field

from townhall.characters import card_prompt
from townhall.server.requests import RequestModel

MAX_GREETINGS, MAX_TAGS, MAX_MESSAGES = 200, 200, 400
Text = Annotated[str, Field(max_length=card_prompt.MAX_CHARACTERS)]
Name = Annotated[str, Field(max_length=200)]


class CharacterFields(RequestModel):
    """What a card says; a field that is left out stays as it is."""

    name: Name | None = None
    nickname: Name | None = None
    description: Text | None = None
    personality: Text | None = None
    scenario: Text | None = None
    first_mes: Text | None = None
    alternate_greetings: Annotated[list[Text], Field(max_length=MAX_GREETINGS)] | None = None
    mes_example: Text | None = None
    system_prompt: Text | None = None
    post_history_instructions: Text | None = None
    creator_notes: Text | None = None
    tags: Annotated[list[Name], Field(max_length=MAX_TAGS)] | None = None
    creator: Name | None = None
    character_version: Name | None = None


class CharacterCreation(RequestModel):
    """POST /townhall/characters."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    fields: CharacterFields | None = None


class CharacterCopy(RequestModel):
    """POST /townhall/characters/{id}/duplicate; without a name, the copy has the original's and the next free id."""

    name: Name = ""


class LorebookContent(RequestModel):
    """PUT /townhall/characters/{id}/lorebook: a character_book as cards have it, or null for none."""

    book: dict[str, Any] | None


class LoreMessage(RequestModel):
    """A message of the conversation that is scanned."""

    role: Literal["system", "user", "assistant"] = "user"
    content: Text


class LorebookTest(RequestModel):
    """POST /townhall/characters/{id}/lorebook/test: `text` is one message of the user's; `book` is tried instead of the stored one."""

    text: Text = ""
    messages: Annotated[list[LoreMessage], Field(max_length=MAX_MESSAGES)] = []
    book: dict[str, Any] | None = None
    seed: int = 0
