"""Bodies of Ollama's API, and how each is asked of ours."""

import json
from typing import Annotated, Any, Literal

from pydantic import Field

from townhall.server.errors import APIError
from townhall.server.request_model import Listed, RequestModel
from townhall.server.requests import ChatRequest, CompletionRequest, Generate, parse

JSON = dict[str, Any]
TAG = ":latest"
# options that our API has by other names, or that say how Ollama is to load a model: its own are fixed when the server starts
RENAMED = {"num_predict": "max_tokens"}
LOADING = {
    "num_ctx",
    "num_batch",
    "num_gpu",
    "main_gpu",
    "use_mmap",
    "num_thread",
    "num_keep",
    "numa",
    "low_vram",
    "vocab_only",
    "use_mlock",
}
EMPTY = {"modelfile": "", "parameters": "", "template": ""}


class OllamaCall(RequestModel):
    """A call has no id here: results follow in the order of the calls."""

    function: dict[str, Any]


class OllamaMessage(RequestModel):
    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    thinking: str | None = None
    images: list[Any] | None = None
    tool_calls: Listed[OllamaCall] | None = None
    tool_name: str | None = None
    name: str | None = None


class OllamaAsked(RequestModel):
    """What chat and generate have in common; `stream` is on unless it is off."""

    model: Annotated[str, Field(max_length=256)]
    stream: bool | None = None
    format: str | dict[str, Any] | None = None
    options: dict[str, Any] | None = None
    think: bool | str | None = None
    keep_alive: Any = None  # 0: the model leaves once it has answered, where the server loads it again by itself; else no effect

    @property
    def leaves(self) -> bool:
        return str(self.keep_alive) in ("0", "0s", "0m", "0h", "0.0")

    def fields(self) -> JSON:
        """Of a chat completion: model, sampling, shape, thoughts."""
        body: JSON = {"model": plain_name(self.model), "stream": self.stream is not False}
        for name, value in (self.options or {}).items():
            if name not in LOADING and value is not None:
                body[RENAMED.get(name, name)] = value
        if body.get("max_tokens") == -2:  # "fill the context"
            body["max_tokens"] = -1
        if self.format == "json":
            body["response_format"] = {"type": "json_object"}
        elif isinstance(self.format, dict):
            body["response_format"] = {"type": "json_schema", "json_schema": {"schema": self.format}}
        elif self.format:
            raise APIError(400, f"format: {self.format[:40]!r} is not known; pass 'json' or a JSON schema", "format")
        if self.think is not None:
            body["chat_template_kwargs"] = {"enable_thinking": bool(self.think)}
        return body


class OllamaChat(OllamaAsked):
    """POST /api/chat."""

    messages: Listed[OllamaMessage] = Field(default_factory=list)
    tools: list[dict[str, Any]] | None = None

    def chat(self) -> ChatRequest:
        """The same as a chat completion; APIError 400 for pictures."""
        body, pending, count = self.fields(), list[tuple[str, str]](), 0
        body["messages"] = []
        for message in self.messages:
            if message.images:
                raise APIError(400, "images cannot be read by this model; send text", "images")
            one: JSON = {"role": message.role, "content": message.content or ""}
            if message.role == "assistant" and message.tool_calls:
                calls, pending = [], []
                for call in message.tool_calls:
                    count += 1
                    name = str(call.function.get("name"))
                    pending.append((name, f"call{count:05d}"))
                    function = {"name": name, "arguments": call.function.get("arguments")}
                    calls.append({"id": pending[-1][1], "type": "function", "function": function})
                one["tool_calls"] = calls
            if message.thinking:
                one["reasoning_content"] = message.thinking
            if message.role == "tool":
                wanted = message.tool_name or message.name
                answered = next((call for call in pending if call[0] == wanted), pending[0] if pending else None)
                if answered:
                    pending.remove(answered)
                one |= {"tool_call_id": answered[1] if answered else "", **({"name": wanted} if wanted else {})}
            body["messages"].append(one)
        if self.tools:
            body["tools"] = self.tools
        return parse(ChatRequest, json.dumps(body).encode())


class OllamaGenerate(OllamaAsked):
    """POST /api/generate: one prompt in the model's format, or with `raw` as it is."""

    prompt: str = ""
    system: str | None = None
    template: str | None = None
    suffix: str | None = None
    raw: bool | None = None
    images: list[Any] | None = None
    context: list[int] | None = None

    def asked(self) -> Generate:
        """The same as a chat completion, or as a text completion; APIError 400 for what this server does not do."""
        for name, fault in (
            ("images", "this model reads no images; send text"),
            ("suffix", "this model fills no gaps; leave it out"),
            ("template", "the model's own template is used; leave it out, or send raw"),
            ("context", "this server hands out no contexts; send the conversation to /api/chat"),
        ):
            if getattr(self, name):
                raise APIError(400, f"{name}: {fault}", name)
        body = self.fields()
        if self.raw:
            return parse(CompletionRequest, json.dumps({"max_tokens": -1, **body, "prompt": self.prompt}).encode())
        system = [{"role": "system", "content": self.system}] if self.system else []
        body["messages"] = [*system, {"role": "user", "content": self.prompt}]
        return parse(ChatRequest, json.dumps(body).encode())


class OllamaEmbed(RequestModel):
    """POST /api/embed."""

    model: Annotated[str, Field(max_length=256)]
    input: str | Listed[str] = Field(default_factory=list)
    truncate: bool | None = None
    dimensions: int | None = None
    options: dict[str, Any] | None = None
    keep_alive: Any = None


class OllamaEmbedding(RequestModel):
    """POST /api/embeddings, as it was before /api/embed."""

    model: Annotated[str, Field(max_length=256)]
    prompt: str = ""
    options: dict[str, Any] | None = None
    keep_alive: Any = None


class OllamaName(RequestModel):
    """POST /api/show."""

    model: Annotated[str, Field(max_length=256)] | None = None
    name: Annotated[str, Field(max_length=256)] | None = None
    verbose: bool | None = None


def plain_name(model: str) -> str:
    """A model's id as we have it: every model has one version."""
    return model.removesuffix(TAG)
