"""The server as the page sees it: its public API over HTTP, streams included, and every failure as one sentence."""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx

from ext.tinygrad.errors import TownhallError

CONNECT = 5.0  # seconds
SILENCE = 60.0  # seconds without even a keep-alive
# a server's own sentence speaks of flags and of commands that a page does not have
OVERFLOW = "This does not fit into the window any more: shorten it, begin a new chat, or choose a Context that forgets (in the settings)."


class WebError(TownhallError):
    """What the page tells a person in one sentence."""


class ServerGone(WebError):
    """Nobody answers, or not to the end."""


@dataclass(frozen=True)
class ModelChoice:
    """A model of the server: its id, and the persona behind it."""

    id: str
    name: str
    description: str = ""
    greeting: str = ""
    user: str = "User"
    bare: bool = False  # the model without a persona


@dataclass(frozen=True)
class Accepted:
    """The server took the question; from here on there is an answer, or half of one."""


@dataclass(frozen=True)
class PromptPreview:
    """What the model will see, as the server's `townhall` object has it before the first word."""

    info: Mapping[str, Any]


@dataclass(frozen=True)
class Text:
    """More of the answer."""

    text: str


@dataclass(frozen=True)
class Finished:
    """The answer's end: why it ended, its tokens, and the server's `townhall` object."""

    reason: str
    usage: Mapping[str, Any]
    info: Mapping[str, Any]


Event = Accepted | PromptPreview | Text | Finished


class Client:
    """One server. `root` is its address without /v1; proxies of the environment are not asked."""

    def __init__(self, root: str, key: str | None = None):
        self.root = root.rstrip("/").removesuffix("/v1")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        timeout = httpx.Timeout(SILENCE, connect=CONNECT)
        self._http = httpx.AsyncClient(base_url=self.root, headers=headers, timeout=timeout, trust_env=False)

    async def close(self) -> None:
        await self._http.aclose()

    async def served_models(self) -> list[ModelChoice]:
        """GET /v1/models, in the server's order."""
        try:
            reply = await self._http.get("/v1/models")
        except httpx.HTTPError as error:
            raise self._gone() from error
        if reply.status_code != 200:
            raise WebError(f"the server at {self.root} said: {_message(reply)}")
        try:
            return [served_model_of(entry) for entry in reply.json()["data"]]
        except (ValueError, KeyError, TypeError) as error:
            raise WebError(f"what answers at {self.root} is no server of this kind; pass the address of `townhall serve`") from error

    async def stream(self, body: Mapping[str, Any]) -> AsyncGenerator["Event", None]:
        """POST /v1/chat/completions. Closing the iterator hangs up, which stops the server at its next token."""
        asked = {**body, "stream": True, "stream_options": {"include_usage": True}}
        reason, whole = "stop", False
        info: dict[str, Any] = {}
        try:
            async with self._http.stream("POST", "/v1/chat/completions", json=asked) as reply:
                if reply.status_code != 200:
                    await reply.aread()
                    raise WebError(_message(reply))
                yield Accepted()
                async for line in reply.aiter_lines():
                    if not line.startswith("data: ") or line == "data: [DONE]":
                        whole = whole or line == "data: [DONE]"
                        continue
                    chunk = json.loads(line.removeprefix("data: "))
                    if "error" in chunk:
                        raise WebError(_said(chunk["error"]))
                    if chunk.get("townhall"):
                        info = chunk["townhall"]
                        yield PromptPreview(info)
                    for choice in chunk["choices"]:
                        reason = choice.get("finish_reason") or reason
                        if text := (choice.get("delta") or {}).get("content"):
                            yield Text(text)
                    if chunk.get("usage"):
                        yield Finished(reason, chunk["usage"], info)
        except httpx.ConnectError as error:
            raise self._gone() from error
        except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._broken() from error
        if not whole:
            raise self._broken()

    def _gone(self) -> ServerGone:
        return ServerGone(f"The server at {self.root} does not answer; start it, then send again.")

    def _broken(self) -> ServerGone:
        return ServerGone(
            "The server went away in the middle of this reply; what came of it is kept, and you can go on once the server is back."
        )


def served_model_of(entry: Mapping[str, Any]) -> ModelChoice:
    """From an entry of /v1/models; servers of other makes name nothing but an id."""
    id = str(entry["id"])
    info = entry.get("townhall") or {}
    texts = {key: str(info[key]) for key in ("name", "description", "greeting", "user") if info.get(key)}
    return ModelChoice(id, **{"name": id, **texts}, bare=bool(info.get("bare", not info)))


def _message(reply: httpx.Response) -> str:
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        return _said(reply.json()["error"])
    return f"HTTP status {reply.status_code}"


def _said(error: Mapping[str, Any]) -> str:
    """An error object in a person's words."""
    return OVERFLOW if error.get("code") == "context_length_exceeded" else str(error.get("message") or "the server failed")
