"""The API described for machines, from the very models that requests are parsed with."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from townhall import __version__
from townhall.server.embeddings import EmbeddingsRequest
from townhall.server.endpoints import EndpointGroup
from townhall.server.planned_request import DROPPED, WARNING
from townhall.server.requests import ChatRequest, CompletionRequest, DetokenizeRequest, TokenizeRequest

JSON = dict[str, Any]
WHY = {
    400: "The request is wrong, or asks for what cannot be done.",
    401: "The API key is missing or wrong.",
    403: "That host name or origin may not ask here.",
    404: "There is no such model or thing.",
    405: "That is not possible there.",
    408: "The request took too long.",
    409: "There is one of that name already, or another request is at work on it.",
    413: "The body is too large.",
    422: "There are too many messages.",
    429: "The queue is full; Retry-After says when to try again.",
    431: "The headers are too large.",
    500: "The server failed.",
    502: "Another server's model was to answer, and does not (--via).",
    503: "The server is loading or shutting down.",
    507: "The file cannot be stored.",
}
ABOUT = "Personas behind OpenAI's API. Every path that begins with /v1 is there without it, too."
HEADERS = {
    DROPPED: "What of the prompt was left out: messages and tokens.",
    WARNING: "What was done otherwise than asked for: the bare model answers for one that is not here.",
}
_TEXT: JSON = {"type": "string"}
_COUNT: JSON = {"type": "integer", "minimum": 0}


def _object(required: JSON, **optional: JSON) -> JSON:
    return {"type": "object", "properties": {**required, **optional}, "required": list(required)}


_NULLABLE_OBJECT: JSON = {"anyOf": [{"type": "object"}, {"type": "null"}]}
_FINISH: JSON = {"enum": ["stop", "length", "tool_calls", "function_call", None]}
_NULLABLE_TEXT: JSON = {"type": ["string", "null"]}
_USAGE = _object(
    {
        "prompt_tokens": _COUNT,
        "completion_tokens": _COUNT,
        "total_tokens": _COUNT,
        "prompt_tokens_details": _object({"cached_tokens": _COUNT}),
    }
)


def _completion(object: str, said: JSON) -> JSON:
    choice = _object({"index": _COUNT, **said, "finish_reason": _FINISH, "logprobs": _NULLABLE_OBJECT})
    frame = {"id": _TEXT, "object": {"const": object}, "created": _COUNT, "model": _TEXT}
    return _object({**frame, "choices": {"type": "array", "items": choice}, "usage": _USAGE, "townhall": {"type": "object"}})


_VIA = {"anyOf": [_object({"model": _TEXT, "host": _TEXT}), {"type": "null"}]}  # which model of another server answers
_WHO = _object({"name": _TEXT, "bare": {"type": "boolean"}, "description": _TEXT, "greeting": _TEXT, "user": _TEXT, "via": _VIA})
_VECTOR: JSON = {"anyOf": [{"type": "array", "items": {"type": "number"}}, _TEXT]}
_EMBEDDING = _object({"object": {"const": "embedding"}, "index": _COUNT, "embedding": _VECTOR})
_TOKENS = _object({"prompt_tokens": _COUNT, "total_tokens": _COUNT})
_MODEL = _object({"id": _TEXT, "object": {"const": "model"}, "created": _COUNT, "owned_by": _TEXT, "townhall": _WHO})
_CALL = _object({"id": _TEXT, "type": {"const": "function"}, "function": _object({"name": _TEXT, "arguments": _TEXT})})
_MESSAGE = _object(
    {"role": {"const": "assistant"}, "content": _NULLABLE_TEXT},
    tool_calls={"type": "array", "items": _CALL},
    function_call=_object({"name": _TEXT, "arguments": _TEXT}),
    reasoning_content=_TEXT,
)
_REPLIES: dict[str, JSON] = {
    "Model": _MODEL,
    "Models": _object({"object": {"const": "list"}, "data": {"type": "array", "items": {"$ref": "#/components/schemas/Model"}}}),
    "ChatCompletion": _completion("chat.completion", {"message": _MESSAGE}),
    "Completion": _completion("text_completion", {"text": _TEXT}),
    "Embeddings": _object({"object": {"const": "list"}, "data": {"type": "array", "items": _EMBEDDING}, "model": _TEXT, "usage": _TOKENS}),
    "Tokens": _object({"tokens": {"type": "array", "items": _COUNT}, "count": _COUNT, "max_model_len": _COUNT}),
    "Text": _object({"prompt": _TEXT}),
    "Health": _object({"status": {"enum": ["loading", "ok", "draining"]}, "queue": {"type": "object"}, "slots": {"type": "object"}}),
    "Error": _object(
        {"error": _object({"message": _TEXT, "type": _TEXT, "param": {"type": ["string", "null"]}, "code": {"type": ["string", "null"]}})}
    ),
}


def document(groups: Sequence[EndpointGroup] = ()) -> JSON:
    """OpenAPI 3.1, with the endpoints of `groups`."""
    kinds: list[type[BaseModel]] = [ChatRequest, CompletionRequest, EmbeddingsRequest, TokenizeRequest, DetokenizeRequest]
    kinds += [body for group in groups for body in group.bodies]
    _, defined = models_json_schema([(kind, "validation") for kind in kinds], ref_template="#/components/schemas/{model}")
    asked = (400, 401, 403, 408, 413, 431, 500, 503)
    generated = (*asked, 404, 422, 429, 502)
    paths = {
        "/v1/models": {"get": _operation("The models: personas, and the bare one.", "Models", (401, 403, 431, 503))},
        "/v1/models/{id}": {
            "get": _operation("One model.", "Model", (401, 403, 404, 431, 503))
            | {"parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}]}
        },
        "/v1/chat/completions": {
            "post": _operation("An answer in a conversation.", "ChatCompletion", generated, "ChatRequest", streams=True)
        },
        "/v1/completions": {"post": _operation("A text carried on.", "Completion", generated, "CompletionRequest", streams=True)},
        "/v1/embeddings": {"post": _operation("Vectors of texts.", "Embeddings", (*asked, 404), "EmbeddingsRequest")},
        "/v1/tokenize": {"post": _operation("Text to ids.", "Tokens", (*asked, 404), "TokenizeRequest")},
        "/v1/detokenize": {"post": _operation("Ids to text.", "Text", (*asked, 404), "DetokenizeRequest")},
        "/health": {"get": _health()},
        "/metrics": {"get": _metrics()},
    }
    replies = dict(_REPLIES)
    for group in groups:
        paths |= group.paths(_error)
        replies |= group.replies
    return {
        "openapi": "3.1.0",
        "info": {"title": "Townhall", "version": __version__, "description": ABOUT},
        "paths": paths,
        "components": {
            "schemas": {**defined.get("$defs", {}), **replies},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(summary: str, reply: str, errors: tuple[int, ...], asked: str | None = None, streams: bool = False) -> JSON:
    content: JSON = {"application/json": {"schema": {"$ref": f"#/components/schemas/{reply}"}}}
    if streams:
        content["text/event-stream"] = {}  # a schema would be that of one event, not of the text
    headers: JSON = {name: {"description": said, "schema": _TEXT} for name, said in HEADERS.items()} if asked else {}
    responses = {
        "200": {"description": summary, "content": content, "headers": headers},
        **{str(status): _error(status) for status in sorted(errors)},
    }
    operation: JSON = {"summary": summary, "responses": responses, "security": [{"key": []}, {}]}
    if asked:
        schema = {"$ref": f"#/components/schemas/{asked}"}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return operation


def _error(status: int) -> JSON:
    return {"description": WHY[status], "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}


def _health() -> JSON:
    operation = _operation("What is going on.", "Health", (403, 431))
    operation["responses"]["503"] = {**operation["responses"]["200"], "description": WHY[503]}
    return operation


def _metrics() -> JSON:
    operation = _operation("Counts for Prometheus.", "Error", (401, 403, 431))
    operation["responses"]["200"]["content"] = {"text/plain": {"schema": _TEXT}}
    return operation
