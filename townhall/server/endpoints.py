"""Endpoints of /townhall/…: each is declared once, and both its route and its part of the OpenAPI document are made of that.

Bodies are JSON (a pydantic model) or a file, which is streamed into a temporary one; replies are JSON, a file, or server-sent events.
"""

import asyncio
import json
import os
import re
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from townhall.characters import bounded_json
from townhall.server.errors import APIError
from townhall.server.guard import read_body
from townhall.server.requests import parse
from townhall.server.serve_options import Limits

JSON = dict[str, Any]
Handler = Callable[[Request], Awaitable[Response]]
Kind = TypeVar("Kind", bound=BaseModel)

FILE = "application/octet-stream"
EVENTS = "text/event-stream"
UPLOAD_SECONDS = 3600.0  # for a whole file; a connection that sends nothing is ended by Limits.arrival
_PARAMETER = re.compile(r"{(\w+)(?::\w+)?}")
TEXT: JSON = {"type": "string"}
COUNT: JSON = {"type": "integer", "minimum": 0}
# of a file that a stranger made: it is shown as what it is, runs nothing, and asks for nothing
INERT = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox"}


@dataclass(frozen=True)
class Endpoint:
    """`reply` is a schema's name, or media types between ", "; `body` a pydantic model, or FILE; `query` its parameters."""

    method: str
    path: str
    handler: Handler
    summary: str
    reply: str
    body: type[BaseModel] | str | None = None
    query: Mapping[str, JSON] = field(default_factory=dict)
    errors: Sequence[int] = ()
    status: int = 200
    streams: str = ""  # media type of the reply where it is streamed
    error: str = ""  # schema of its errors, where they have one of their own

    @property
    def route(self) -> Route:
        return Route(self.path, self.handler, methods=[self.method])

    @property
    def documented_path(self) -> str:
        return _PARAMETER.sub(r"{\1}", self.path)

    def operation(self, described: Callable[[int], JSON]) -> JSON:
        """OpenAPI's operation object; `described` gives the response object of an error."""
        content: JSON = {"application/json": {"schema": {"$ref": f"#/components/schemas/{self.reply}"}}}
        if "/" in self.reply:
            content = {media: {} if "json" in media else {"schema": TEXT} for media in self.reply.split(", ")}
        if self.streams:
            content[self.streams] = {}  # a schema would be that of one event, not of the text
        errors = {400, 401, 403, 431, 500, 503, *self.errors, *((408, 413) if self.body else ()), *((507,) if self.body == FILE else ())}
        responses = {str(self.status): {"description": self.summary, "content": content}}
        own = {"content": {"application/json": {"schema": reference(self.error)}}} if self.error else {}
        operation: JSON = {
            "summary": self.summary,
            "responses": responses | {str(status): described(status) | own for status in sorted(errors)},
            "security": [{"key": []}, {}],
        }
        path = [
            {"name": name, "in": "path", "required": True, "schema": {**TEXT, "minLength": 1}} for name in _PARAMETER.findall(self.path)
        ]
        if parameters := path + [{"name": name, "in": "query", "schema": schema} for name, schema in self.query.items()]:
            operation["parameters"] = parameters
        if self.body == FILE:
            operation["requestBody"] = {"required": True, "content": {FILE: {"schema": {**TEXT, "format": "binary"}}}}
        elif isinstance(self.body, type):
            operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": reference(self.body.__name__)}}}
        return operation


@dataclass(frozen=True)
class EndpointGroup:
    """Endpoints about one thing, and the schemas of their replies by name."""

    endpoints: Sequence[Endpoint]
    replies: Mapping[str, JSON]

    @property
    def routes(self) -> list[Route]:
        return [endpoint.route for endpoint in self.endpoints]

    @property
    def bodies(self) -> list[type[BaseModel]]:
        return list(dict.fromkeys(endpoint.body for endpoint in self.endpoints if isinstance(endpoint.body, type)))

    def paths(self, described: Callable[[int], JSON]) -> JSON:
        """OpenAPI's path items."""
        paths: JSON = {}
        for endpoint in self.endpoints:
            paths.setdefault(endpoint.documented_path, {})[endpoint.method.lower()] = endpoint.operation(described)
        return paths


def schema(required: JSON, **optional: JSON) -> JSON:
    """Of an object."""
    return {"type": "object", "properties": {**required, **optional}, "required": list(required)}


def listed(items: str | JSON) -> JSON:
    """Of a list, of a named schema or one that is given."""
    return {"type": "array", "items": reference(items) if isinstance(items, str) else items}


def reference(name: str) -> JSON:
    """To a named schema."""
    return {"$ref": f"#/components/schemas/{name}"}


async def read_json(request: Request, kind: type[Kind], limits: Limits, most: int | None = None) -> Kind:
    """The body as `kind`, of at most `most` bytes; its depth and number of values are looked at first."""
    try:
        body = await read_body(request, replace(limits, body=most) if most else limits)
    except ClientDisconnect:
        raise APIError(400, "the request's body broke off") from None

    def parsed() -> Kind:
        bounded_json.parse(body, "the body")
        return parse(kind, body)

    return await asyncio.to_thread(parsed)


@asynccontextmanager
async def uploaded(request: Request, limits: Limits, most: int, suffix: str = "", folder: Path | None = None) -> AsyncIterator[Path]:
    """The body in a temporary file, streamed; it is deleted in the end unless it was renamed.

    APIError 413 for more than `most` bytes, 408 for a client that stops sending, 400 for one that leaves.
    """
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    declared = request.headers.get("content-length", "0")
    if declared.isascii() and declared.isdecimal() and int(declared[:20]) > most:
        raise _too_large(most)
    handle, name = await asyncio.to_thread(tempfile.mkstemp, suffix, ".upload-", folder)
    path, size = Path(name), 0
    try:
        with open(handle, "wb") as file:
            stream = request.stream()
            try:
                async with asyncio.timeout(UPLOAD_SECONDS):
                    while True:
                        async with asyncio.timeout(limits.arrival):
                            part = await anext(stream, None)
                        if part is None:
                            break
                        size += len(part)
                        if size > most:
                            raise _too_large(most)
                        await asyncio.to_thread(file.write, part) if len(part) > 1 << 16 else file.write(part)
            except TimeoutError:
                raise APIError(408, "the file did not arrive in time", code="timeout", retry_after=1) from None
            except ClientDisconnect:
                raise APIError(400, "the upload broke off") from None
            except OSError as error:
                raise APIError(507, f"the file cannot be stored: {error.strerror or error}", code="storage") from error
        yield path
    finally:
        path.unlink(missing_ok=True)


def _too_large(most: int) -> APIError:
    return APIError(413, f"the file is larger than {most >> 20} MB", code="body_too_large")


def file_response(content: bytes, media_type: str, name: str = "") -> Response:
    """A file from a stranger: shown inert, or with `name` saved under that name."""
    headers = {**INERT, "Cache-Control": "no-cache"}
    if name:
        headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return Response(content, headers=headers, media_type=media_type)


def event(values: JSON, name: str = "") -> bytes:
    """One server-sent event."""
    data = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    return (f"event: {name}\n" if name else "").encode() + f"data: {data}\n\n".encode()


def safe_name(name: str, fallback: str) -> str:
    """A file's name as an upload may bring it, without folders, control characters and leading dots; at most 120 bytes."""
    name = os.path.basename(name.replace("\\", "/")).strip()
    name = "".join(character if character.isprintable() and character not in '<>:"|?*' else "_" for character in name).lstrip(". ")
    stem, suffix = os.path.splitext(name)
    room = 120 - len(suffix.encode()[:20])
    stem = stem.encode("utf-8", "replace")[:room].decode("utf-8", "ignore")
    return f"{stem}{suffix[:20]}" if stem else fallback
