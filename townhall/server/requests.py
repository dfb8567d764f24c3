"""Request bodies: the fields of OpenAI's API that are honoured, and those that are known and refused."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from app.models.llama.sanitize import clipped
from app.sampler_settings import DECLARED, LONGEST_TEXT, MOST_TEXTS, parse_texts
from townhall.context.strategies import STRATEGIES
from townhall.server.errors import APIError
from townhall.server.request_model import FLOATS as FLOATS
from townhall.server.request_model import Id as Id
from townhall.server.request_model import Listed as Listed
from townhall.server.request_model import MaxTokens
from townhall.server.request_model import RequestModel as RequestModel
from townhall.server.tool_requests import FunctionCall, FunctionDefinition, MessageCall, Tool, check_choice

if TYPE_CHECKING:
    Context = str
else:
    Context = Literal[tuple(STRATEGIES)]


def _texts(value: Any) -> Any:
    """Empty ones say nothing; a text is a list as some clients write it."""
    if isinstance(value, str):
        try:
            value = parse_texts(value[: MOST_TEXTS * 8 * LONGEST_TEXT])
        except ValueError as error:
            raise ValueError("this text is no list; send a list of texts, or one as JSON") from error
    return [text for text in value if text != ""] if isinstance(value, list) else value


BreakerText = Annotated[str, Field(max_length=LONGEST_TEXT)]


TEXTS = ("text", "input_text", "output_text")


class Part(RequestModel):
    """A piece of a message; text is the only kind that this model reads, as OpenAI's Responses call it too, and an answer's refusal."""

    type: str
    text: str | None = None
    refusal: str | None = None

    @model_validator(mode="after")
    def _is_text(self) -> "Part":
        if self.type not in (*TEXTS, "refusal") or self.said is None:
            raise ValueError(f"content of type {self.type[:40]!r} cannot be read; send text")
        return self

    @property
    def said(self) -> str | None:
        return self.text if self.type in TEXTS else self.refusal


class ChatMessage(RequestModel):
    """`name` is accepted; "function" is what the role "tool" was called before, and `function_call` its call."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | Listed[Part] | None = None
    name: str | None = None
    tool_calls: Listed[MessageCall] | None = None
    tool_call_id: str | None = None  # of the call that this is the result of
    function_call: FunctionCall | None = None
    reasoning_content: str | None = None  # what an assistant thought; the template decides whether the model sees it

    @property
    def text(self) -> str:
        """All that was said; parts stand on lines of their own, as with llama.cpp and vLLM."""
        if isinstance(self.content, list):
            return "\n".join(part.said or "" for part in self.content)
        return self.content or ""

    @property
    def calls(self) -> list[MessageCall]:
        """The functions that an assistant called."""
        return [*(self.tool_calls or []), *([MessageCall(function=self.function_call)] if self.function_call else [])]


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


def _either_way(schema: dict[str, Any]) -> None:
    schema["required"].remove("json_schema")
    schema["anyOf"] = [{"required": [name], "properties": {name: {"type": "object"}}} for name in ("json_schema", "schema")]


class JSONSchemaFormat(RequestModel):
    """The schema may stand beside `type`, without OpenAI's wrapper."""

    model_config = ConfigDict(json_schema_extra=_either_way)

    type: Literal["json_schema"]
    json_schema: JSONSchema
    schema_: dict[str, Any] | None = Field(None, alias="schema")

    @model_validator(mode="before")
    @classmethod
    def _wrapped(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("json_schema") is None and data.get("schema") is not None:
            return {**data, "json_schema": {"schema": data["schema"]}}
        return data


MAX_STOPS, MAX_STOP, MAX_CHOICES, MAX_TOP = 64, 256, 16, 20

UNNAMED = ("str", "constrained-str")  # in the places that pydantic names

StopText = Annotated[str, Field(max_length=MAX_STOP)]


class StreamOptions(RequestModel):
    include_usage: bool | None = None


class Extension(RequestModel):
    """Townhall's own: background requests (titles, tags) wait for chats and never take a chat's cache."""

    lane: Literal["chat", "background"] = "chat"
    context: Context | None = None


# other servers' names for a shape that the answer must have: a client that sends one would take a text of any shape for it
SHAPES = (
    "grammar",
    "grammar_string",
    "json_schema",
    "structured_outputs",
    *(f"guided_{kind}" for kind in ("json", "regex", "choice", "grammar")),
)


def _sampler_fields() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, declared in DECLARED.items():
        bounds: dict[str, Any] = {**(declared.api or declared.bounds)}
        bounded: Any = Annotated[declared.kind, Field(**bounds), FLOATS]
        if declared.kind is tuple:
            bounded = Annotated[Listed[BreakerText], Field(max_length=MOST_TEXTS), BeforeValidator(_texts)]
        alias: dict[str, Any] = {"validation_alias": AliasChoices(name, *declared.aliases)} if declared.aliases else {}
        found[name] = (bounded | None, Field(None, **alias))
    return found


if TYPE_CHECKING:

    class SamplerFields(RequestModel):
        repeat_last_n: int | None
        frequency_penalty: float | None
        presence_penalty: float | None

else:
    SamplerFields = create_model("SamplerFields", __base__=RequestModel, **_sampler_fields())


MAX_ADAPTERS = 8


class LoraEntry(RequestModel):
    """An adapter by its name, or by its number among those that /v1/models lists (llama.cpp's), and by how much it counts."""

    id: Annotated[int, FLOATS, Field(ge=0, lt=1 << 16)] | Annotated[str, Field(min_length=1, max_length=256)]
    scale: Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)] = 1.0


class Generate(SamplerFields):
    """What both kinds of completion know."""

    @model_validator(mode="before")
    @classmethod
    def _nothing_in_vain(cls, data: Any) -> Any:
        for name in SHAPES if isinstance(data, dict) else ():
            if data.get(name):
                raise PydanticCustomError("unknown_shape", "{name} is not known here; a schema goes into response_format", {"name": name})
        return data

    model: Annotated[str, Field(max_length=256)] | None = None
    max_tokens: MaxTokens | None = None
    logit_bias: dict[Annotated[str, Field(pattern=r"^[0-9]{1,9}$")], Annotated[float, Field(ge=-100, le=100)]] | None = None
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63), FLOATS] | None = None  # -1: any, as for other local servers and their clients
    stop: StopText | Annotated[Listed[StopText], Field(max_length=MAX_STOPS)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES), FLOATS] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    response_format: Annotated[TextFormat | JSONObjectFormat | JSONSchemaFormat, Field(discriminator="type")] | None = None
    context: Context | None = None
    townhall: Extension | None = None
    lora: Annotated[Listed[LoraEntry], Field(max_length=MAX_ADAPTERS)] | None = None  # in place of the model's own; []: none

    @property
    def stops(self) -> tuple[str, ...]:
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(text for text in stop if text)

    @property
    def shape(self) -> dict[str, Any] | None:
        """The JSON schema that an answer must follow, where there is one."""
        form = self.response_format
        if isinstance(form, JSONObjectFormat):
            return form.schema_ or {"type": "object"}
        return form.json_schema.schema_ if isinstance(form, JSONSchemaFormat) else None

    @property
    def strategy(self) -> str | None:
        """The context strategy, where the request names one."""
        return self.context or (self.townhall.context if self.townhall else None)

    @property
    def with_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


class TemplateSwitches(RequestModel):
    """What clients of vLLM and llama.cpp's server hand to a chat template."""

    enable_thinking: bool | None = None


class ChatRequest(Generate):
    """POST /v1/chat/completions."""

    messages: Annotated[Listed[ChatMessage], Field(min_length=1)]
    max_completion_tokens: MaxTokens | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP), FLOATS] | None = None
    tools: Listed[Tool] | None = None
    tool_choice: Any = None
    functions: Listed[FunctionDefinition] | None = None
    function_call: Any = None
    web_search_options: Any = None
    moderation: Any = None
    parallel_tool_calls: bool | None = None
    modalities: Listed[str] | None = None
    chat_template_kwargs: TemplateSwitches | None = None

    @property
    def think(self) -> bool | None:
        """Whether the model is to think first, where the request says so."""
        return self.chat_template_kwargs.enable_thinking if self.chat_template_kwargs else None

    @field_validator("web_search_options", "moderation")
    @classmethod
    def _no_service(cls, value: Any) -> Any:
        if value is not None:
            raise ValueError("there is no such service here; leave it out")
        return value

    @field_validator("modalities")
    @classmethod
    def _text_only(cls, value: list[str] | None) -> list[str] | None:
        if value and set(value) != {"text"}:
            raise ValueError("these models answer with text only")
        return value

    @model_validator(mode="after")
    def _whole(self) -> "ChatRequest":
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs to be true")
        check_choice(self.tools, self.tool_choice, self.functions, self.function_call)
        return self

    @property
    def limit(self) -> int | None:
        """Tokens in an answer, at most; None where the request does not say, below 0 as many as the window holds."""
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens


class CompletionRequest(Generate):
    """POST /v1/completions: a raw text, or its ids, carried on."""

    prompt: Annotated[str | Listed[str] | Listed[Id] | Listed[Listed[Id]], Field(union_mode="left_to_right")]
    logprobs: Annotated[int, Field(ge=0, le=MAX_TOP), FLOATS] | None = None
    echo: bool | None = None
    suffix: str | None = None
    best_of: Annotated[int, Field(ge=1, le=MAX_CHOICES), FLOATS] | None = None

    @model_validator(mode="after")
    def _whole(self) -> "CompletionRequest":
        if self.suffix:
            raise ValueError("suffix is not supported; leave it out")
        if (self.best_of or 1) > (self.n or 1):
            raise ValueError("best_of beyond n is not supported; leave it out")
        if not 1 <= len(self.prompts) <= MAX_CHOICES:
            raise ValueError(f"pass 1 to {MAX_CHOICES} prompts")
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """Each prompt, as text or ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if self.prompt and isinstance(self.prompt[0], int):
            return [self.prompt]
        return list(self.prompt)  # type: ignore[arg-type]


class TokenizeRequest(RequestModel):
    """POST /v1/tokenize."""

    model: Annotated[str, Field(max_length=256)] | None = None
    prompt: str = Field(validation_alias=AliasChoices("prompt", "content"))
    add_special_tokens: bool = True


class DetokenizeRequest(RequestModel):
    """POST /v1/detokenize."""

    model: Annotated[str, Field(max_length=256)] | None = None
    tokens: Listed[Annotated[int, Field(ge=0, lt=1 << 31), FLOATS]]


Kind = TypeVar("Kind", bound=BaseModel)
LONGEST_FAULT = 1000  # characters


def parse(kind: type[Kind], body: bytes) -> Kind:
    """A request, or an APIError 400 that names the field and the fault."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        # of the ways in which a union can be missed, the one that went deepest is what was meant, and no other type than the given one
        first = max(
            error.errors(include_url=False, include_input=False), key=lambda e: (len(_places(e["loc"])), not e["type"].endswith("_type"))
        )
        # both repeat what the client sent
        where = clipped(".".join(_places(first["loc"]))) or None
        fault = clipped(first["msg"].removeprefix("Value error, "), LONGEST_FAULT)
        if first["type"] == "json_invalid":
            raise APIError(400, f"the body is no JSON: {fault}", code="invalid_json") from error
        if first["type"] == "too_many" and first["ctx"]["name"] == "messages":
            raise APIError(422, fault, "messages", "too_many_messages") from error
        raise APIError(400, f"{where}: {fault}" if where else fault, param=where or first.get("ctx", {}).get("name")) from error


def _places(loc: Sequence[str | int]) -> list[str]:
    """Where in a request that is, as its sender would say: without pydantic's names for the ways through a union."""
    named = [str(part) for part in loc if part not in UNNAMED and "[" not in str(part)]
    return named[:1] + named[2:] if named[:1] == ["response_format"] else named
