"""Bodies of requests under /townhall/chats. Unknown fields are refused: a setting that is passed over would be taken for one that holds."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from townhall.adapter_spec import MOST_SCALE
from townhall.context.source import SourceRole
from townhall.logbook.chat_tree import Rating
from townhall.server.requests import FLOATS, MAX_STOPS, MAX_TOP, Context, Listed, RequestModel, SamplerFields, StopText

MAX_TEXT = 1 << 20  # characters; the body's own limit comes before it
MAX_TITLE, MAX_TAGS, MAX_TAG, MAX_SYSTEM = 200, 32, 64, 1 << 16
Text = Annotated[str, Field(max_length=MAX_TEXT)]
MessageId = Annotated[int, Field(ge=1, lt=1 << 53), FLOATS]
TagText = Annotated[str, Field(min_length=1, max_length=MAX_TAG)]
STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)


class ChatSampler(SamplerFields):
    """Settings of the sampler that differ from the server's own; null takes one back."""

    model_config = STRICT

    def given(self) -> dict[str, Any]:
        """What was said, null for what is taken back."""
        values = {name: getattr(self, name) for name in self.model_fields_set}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


class StrictModel(RequestModel):
    """Unknown fields are refused, wrong types as well."""

    model_config = STRICT


class DrawnReply(StrictModel):
    """How a reply is drawn, for this once."""

    prefill: Text = ""
    sampler: ChatSampler | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1 << 31), FLOATS] | None = None
    seed: Annotated[int, Field(ge=-1, lt=1 << 63), FLOATS] | None = None


MAX_LIBRARIES = 8
LibraryName = Annotated[str, Field(min_length=1, max_length=64)]


class ChatAdapter(StrictModel):
    """An adapter that the server has, and by how much it counts."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    scale: Annotated[float, Field(ge=-MOST_SCALE, le=MOST_SCALE)] = 1.0


class ChatSettings(StrictModel):
    """How a chat's replies are made; a key that is null is as the server has it."""

    sampler: ChatSampler | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1 << 31), FLOATS] | None = None
    seed: Annotated[int, Field(ge=-1, lt=1 << 63), FLOATS] | None = None
    context: Context | None = None
    think: bool | None = None
    stop: Annotated[Listed[StopText], Field(max_length=MAX_STOPS)] | None = None
    adapters: Annotated[Listed[ChatAdapter], Field(max_length=16)] | None = None  # in place of the character's own; []: none
    libraries: Annotated[Listed[LibraryName], Field(max_length=MAX_LIBRARIES)] | None = None  # likewise
    enrich: Literal["off", "ask", "always"] | None = None  # whether a client has questions rewritten before they are sent

    def given(self) -> dict[str, Any]:
        """As a log's `set` has it."""
        values = {name: getattr(self, name) for name in self.model_fields_set}
        values |= {"sampler": self.sampler.given()} if self.sampler is not None else {}
        return values | ({"adapters": [one.model_dump() for one in self.adapters]} if self.adapters is not None else {})


class NoteFields(StrictModel):
    """An author's note: stands `depth` messages before the end of every prompt."""

    text: Annotated[str, Field(min_length=1, max_length=MAX_SYSTEM)]
    depth: Annotated[int, Field(ge=0, le=10_000), FLOATS] = 4
    role: SourceRole = "system"


class ChatChanges(StrictModel):
    """PATCH /townhall/chats/{id}; what is left out stays as it is."""

    title: Annotated[str, Field(max_length=MAX_TITLE)] | None = None
    folder: Annotated[str, Field(max_length=MAX_TAG)] | None = None
    tags: Annotated[Listed[TagText], Field(max_length=MAX_TAGS)] | None = None
    system: Annotated[str, Field(max_length=MAX_SYSTEM)] | None = None
    note: NoteFields | None = None
    settings: ChatSettings | None = None
    model: Annotated[str, Field(max_length=256)] | None = None

    def given(self) -> dict[str, Any]:
        """As a log's `set` has it, the title aside; what is empty or null is taken away."""
        changes: dict[str, Any] = {}
        for name in self.model_fields_set - {"title"}:
            value = getattr(self, name)
            if isinstance(value, ChatSettings):
                value = value.given()
            elif isinstance(value, NoteFields):
                value = value.model_dump()
            changes[name] = value or None
        return changes


class NewChat(ChatChanges):
    """POST /townhall/chats."""

    greeting: Annotated[int, Field(ge=0, le=1000), FLOATS] | None = None


class EnrichedWords(StrictModel):
    """The words that a person typed, and those that were offered in their place."""

    own: Text
    offered: Text


class AskedQuestion(StrictModel):
    """POST …/enrich."""

    text: Text

    @model_validator(mode="after")
    def _asks_something(self) -> "AskedQuestion":
        if not self.text.strip():
            raise ValueError("text: a question holds at least one character that is no space")
        return self


class NewMessage(DrawnReply):
    """POST /townhall/chats/{id}/messages. `enriched` is kept with it."""

    text: Text
    enriched: EnrichedWords | None = None
    role: Literal["user", "assistant"] = "user"
    reply: bool = True
    after: Annotated[int, Field(ge=0), FLOATS] | None = None
    key: Annotated[str, Field(max_length=128)] | None = None

    @model_validator(mode="after")
    def _said_by_one(self) -> "NewMessage":
        if self.role == "assistant" and self.reply:
            raise ValueError("reply: a message of the character's is not answered by the character; send reply false with it")
        if not self.text.strip():
            raise ValueError("text: a message holds at least one character that is no space")
        return self


class ReplyRequest(DrawnReply):
    """POST …/reply, …/continue and …/impersonate; without `message` the last one is meant."""

    message: MessageId | None = None


class AlternativeRequest(DrawnReply):
    """POST …/messages/{mid}/alternative."""

    position: Annotated[int, Field(ge=0, lt=1 << 31), FLOATS]
    token: Annotated[int, Field(ge=0, lt=1 << 31), FLOATS]


class ChosenMessage(StrictModel):
    """POST …/choose."""

    message: MessageId


class BranchRequest(StrictModel):
    """POST …/branch."""

    message: Annotated[int, Field(ge=0, lt=1 << 53), FLOATS]
    chat: bool = False
    title: Annotated[str, Field(max_length=MAX_TITLE)] = ""


class MessageEdit(DrawnReply):
    """PATCH …/messages/{mid}."""

    text: Text
    copy_: Annotated[bool, Field(alias="copy")] = False
    reply: bool = False


class MessageRating(StrictModel):
    """PUT …/messages/{mid}/rating; null takes a rating back."""

    rating: Rating | None


class Draft(StrictModel):
    """PUT …/draft."""

    text: Text
    tab: Annotated[str, Field(max_length=128)] = ""


class CountedText(StrictModel):
    """POST …/tokens."""

    text: Text


class StopRequest(StrictModel):
    """POST …/stop."""


MOST_ALTERNATIVES = MAX_TOP
