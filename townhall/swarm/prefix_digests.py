"""What a request begins with, as digests: the next request of a conversation begins with the same, and so finds its replica again."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

BLOCK = 512  # characters of a raw prompt between two digests
MOST_BLOCKS = 64
OPENERS = ("system", "developer")  # roles that stand before a conversation: many of them begin with the same


def session_digest(session: str) -> bytes:
    """Of a conversation that its client gives a name."""
    return _digest(b"session", session)


def prefix_digests(body: Mapping[str, Any]) -> list[bytes]:
    """Digests of a request's beginnings, shortest first; the last is of all of it. Empty where it is no conversation and no text.

    A chat (OpenAI's, Ollama's, the Responses API's `input`) has one after each message from its first question on: what stands before that
    is shared by many. A raw prompt has one every 512 characters. Model and adapters count, for no cache of one is of use to another.
    """
    if isinstance(session := body.get("prompt_cache_key"), str) and session:
        return [session_digest(session)]
    start = _digest(b"model", json.dumps([body.get("model"), body.get("lora")], sort_keys=True, default=str))
    if system := body.get("instructions") or body.get("system"):
        start = _digest(start, str(system))
    said, messages = body.get("input"), body.get("messages")
    messages = [{"role": "user", "content": said}] if isinstance(said, str) else messages if messages is not None else said
    if isinstance(messages, list) and all(isinstance(message, dict) for message in messages):
        return _of_messages(start, messages)
    return _of_text(start, prompt) if isinstance(prompt := body.get("prompt"), str) and prompt else []


def with_reply(last: bytes, text: str) -> bytes:
    """The digest after the answer: what the conversation's next request holds before its question."""
    return _digest(last, _line("assistant", text.strip()))


def _of_messages(start: bytes, messages: Sequence[Mapping[str, Any]]) -> list[bytes]:
    digests: list[bytes] = []
    for message in messages:
        start = _digest(start, _line(str(message.get("role") or message.get("type") or "user"), _text(message)))
        if digests or message.get("role") not in OPENERS:
            digests.append(start)
    return digests


def _of_text(start: bytes, text: str) -> list[bytes]:
    digests = []
    for at in range(0, min(len(text), BLOCK * MOST_BLOCKS), BLOCK):
        start = _digest(start, text[at : at + BLOCK])
        digests.append(start)
    return digests


def _text(message: Mapping[str, Any]) -> str:
    """What a message says, however its client writes that; white space at the ends is not kept by all of them."""
    content = message.get("content")
    if isinstance(content, str):
        return content.strip()
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict)).strip()
    # a call or its result
    rest: Iterable[str] = (str(message[key]) for key in ("tool_calls", "arguments", "output", "function_call") if message.get(key))
    return "\n".join(rest)


def _line(role: str, text: str) -> str:
    return f"{role}\0{text}"


def _digest(before: bytes, text: str) -> bytes:
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16, key=before).digest()
