"""What requests are made of: messages, their parts, and the shapes that an answer may be asked to have."""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

# entries that are looked at at all: a body of 1 MB can hold half a million, and each wrong one would cost an error message
LONGEST = {"messages": 1 << 14, "content": 1 << 10, "prompt": 1 << 16, "tokens": 1 << 16, "logit_bias": 1 << 10, "modalities": 8}

T = TypeVar("T")
Listed = Annotated[list[T], Field(fail_fast=True)]  # one wrong entry is enough


class RequestModel(BaseModel):
    """Unknown fields are tolerated, wrong types are not."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False, populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _not_too_long(cls, data: Any) -> Any:
        for name, most in LONGEST.items():
            value = data.get(name) if isinstance(data, dict) else None
            if isinstance(value, list | dict) and len(value) > most:
                info = {"name": name, "entries": len(value), "most": most}
                raise PydanticCustomError("too_many", "{name} has {entries} entries, more than the {most} that are read", info)
        return data


class Part(RequestModel):
    """A piece of a message; text is the only kind that this model reads, an answer's refusal among it."""

    type: str
    text: str | None = None
    refusal: str | None = None

    @model_validator(mode="after")
    def _is_text(self) -> "Part":
        if self.type not in ("text", "refusal") or self.said is None:
            raise ValueError(f"content of type {self.type[:40]!r} cannot be read; send text")
        return self

    @property
    def said(self) -> str | None:
        return self.text if self.type == "text" else self.refusal


class ChatMessage(RequestModel):
    """`name` and tool ids are accepted; what a tool returned is read as the user's words."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Listed[Part] | None = None
    name: str | None = None
    tool_calls: list[Any] | None = None

    @property
    def text(self) -> str:
        """All that was said."""
        if isinstance(self.content, list):
            return "".join(part.said or "" for part in self.content)
        return self.content or ""


class JSONSchema(RequestModel):
    """`strict` false is honoured as true is."""

    name: str | None = None
    schema_: dict[str, Any] = Field(default_factory=lambda: {"type": "object"}, alias="schema")
    strict: bool | None = None


class TextFormat(RequestModel):
    type: Literal["text"]


class JSONObjectFormat(RequestModel):
    """`schema` is how clients of llama.cpp's server ask for a certain object."""

    type: Literal["json_object"]
    schema_: dict[str, Any] | None = Field(None, alias="schema")


class JSONSchemaFormat(RequestModel):
    type: Literal["json_schema"]
    json_schema: JSONSchema
