"""Schemas of the replies under /townhall/chats, for the OpenAPI document."""

from townhall.logbook.chat_tree import RATINGS
from townhall.server.endpoints import COUNT, JSON, TEXT, listed, reference, schema

COMMON_ERRORS = (404, 408, 409, 413, 429, 507)
FLAG: JSON = {"type": "boolean"}
OBJECT: JSON = {"type": "object"}


def _or_null(value: JSON) -> JSON:
    return {"anyOf": [value, {"type": "null"}]}


_NOTE = schema({"text": TEXT, "depth": COUNT, "role": {"enum": ["system", "user", "assistant"]}})
_MAYBE_TEXT, _MAYBE_COUNT = _or_null(TEXT), _or_null(COUNT)
_GENERATION = schema(
    {
        "id": TEXT,
        "kind": {"enum": ["reply", "continue", "impersonate"]},
        "message": _MAYBE_COUNT,
        "parent": _MAYBE_COUNT,
        "index": _MAYBE_COUNT,
        "text": TEXT,
        "reasoning": TEXT,
        "state": {"enum": ["waiting", "writing"]},
        "tokens": COUNT,
        "at": TEXT,
    }
)
_HEAD = schema(
    {
        "id": TEXT,
        "title": TEXT,
        "model": _MAYBE_TEXT,
        "persona": TEXT,
        "user": TEXT,
        "started": TEXT,
        "changed": TEXT,
        "messages": COUNT,
        "first": TEXT,
        "folder": TEXT,
        "tags": listed(TEXT),
        "damages": COUNT,
        "fault": _MAYBE_TEXT,
        "busy": FLAG,
    }
)
_MESSAGE = schema(
    {
        "id": COUNT,
        "parent": COUNT,
        "index": _MAYBE_COUNT,
        "role": {"enum": ["user", "assistant"]},
        "name": TEXT,
        "text": TEXT,
        "at": _MAYBE_TEXT,
        "reasoning": TEXT,
        "swipe": COUNT,
        "swipe_ids": listed(COUNT),
        "branches": COUNT,
        "edited": FLAG,
        "greeting": FLAG,
        "rating": _or_null({"enum": list(RATINGS)}),
        "enriched": _or_null(schema({"own": TEXT, "offered": TEXT})),
        "finish_reason": _MAYBE_TEXT,
        "seed": _or_null({"type": "integer"}),
        "sampler": _or_null(OBJECT),
        "usage": _or_null(OBJECT),
        "receipt": _or_null(OBJECT),
    }
)
_DETAILS: JSON = {"chat": reference("ChatHead"), "settings": OBJECT, "system": TEXT, "note": _or_null(_NOTE)}
_NAMED = listed(schema({"name": TEXT, "chats": COUNT}))
_HIT = schema(
    {
        **dict.fromkeys(("chat", "title", "first", "persona", "role", "name", "excerpt"), TEXT),
        "message": COUNT,
        "on_path": FLAG,
        "at": _MAYBE_TEXT,
    }
)
_LIKELY: JSON = {"id": COUNT, "text": TEXT, "logprob": _or_null({"type": "number"})}
_NODE = schema(
    {
        **dict.fromkeys(("id", "parent"), COUNT),
        **dict.fromkeys(("role", "name", "excerpt"), TEXT),
        "at": _MAYBE_TEXT,
        "on_path": FLAG,
        "chosen": FLAG,
    }
)
REPLIES: dict[str, JSON] = {
    "ChatHead": _HEAD,
    "Message": _MESSAGE,
    "Generation": _GENERATION,
    "Chats": schema({"chats": listed("ChatHead"), "total": COUNT, "next": _MAYBE_COUNT, "folders": _NAMED, "tags": _NAMED, "event": TEXT}),
    "Hits": schema({"hits": listed(_HIT), "total": COUNT, "next": _MAYBE_COUNT}),
    "ChatDetails": schema({**_DETAILS, "event": TEXT}),
    "OpenChat": schema(
        {
            **_DETAILS,
            "greetings": listed(TEXT),
            "draft": TEXT,
            "messages": listed("Message"),
            "from": COUNT,
            "total": COUNT,
            "generation": _or_null(reference("Generation")),
            "saved": FLAG,
            "enrich": {"enum": ["off", "ask", "always"]},
            "event": TEXT,
        }
    ),
    "EnrichedQuestion": schema(
        {
            **dict.fromkeys(("own", "text", "question", "form", "model"), TEXT),
            "changed": FLAG,
            "reason": _MAYBE_TEXT,
            "facts": listed(TEXT),
            "tokens": COUNT,
        }
    ),
    "DeletedChat": schema({"deleted": TEXT}),
    "ChatTree": schema({"nodes": listed(_NODE), "tip": COUNT}),
    "KeptDraft": schema({"text": TEXT}),
    "Saved": schema({"saved": FLAG}),
    "Messages": schema({"from": COUNT, "total": COUNT, "messages": listed("Message"), "event": TEXT}),
    "Change": schema(
        {
            "event": TEXT,
            "from": COUNT,
            "total": COUNT,
            "messages": listed("Message"),
            "more": FLAG,
            "generation": _or_null(reference("Generation")),
        }
    ),
    "Logprobs": schema({"message": COUNT, "tokens": listed(schema({**_LIKELY, "top": listed(schema(_LIKELY))}))}),
    "TokenCounts": schema(dict.fromkeys(("tokens", "prompt_tokens", "window", "reserve_tokens", "dropped_tokens"), COUNT)),
}
