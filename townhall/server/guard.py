"""ASGI middleware of the API: keys, hosts, sizes, and an answer whatever happens behind it."""

import asyncio
import hashlib
import hmac
import json
import logging
from collections.abc import Sequence
from typing import Protocol
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from townhall.server.errors import APIError, as_api_error, shutting_down
from townhall.server.serve_options import Limits, ServeOptions

log = logging.getLogger("townhall.server")
OPEN = {"/health", "/openapi.json"}  # no key is asked for
PAGE = "/page/"  # nor for the page's own files, which hold nothing of anybody's: the page asks for the key itself


class Keys:
    """Compares in constant time: neither a key's characters nor its length show in how long it takes."""

    def __init__(self, keys: Sequence[str]):
        self._digests = [_digest(key) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def admit(self, authorization: str) -> bool:
        """Does this header hold one of the keys?"""
        scheme, _, key = authorization.partition(" ")
        given = _digest(key.strip())
        # every key is compared, whichever fits
        return scheme.lower() == "bearer" and sum(hmac.compare_digest(given, digest) for digest in self._digests) > 0


class Guarded(Protocol):
    """What stands behind the guard: a `Service`, or the front of several."""

    options: ServeOptions

    def count(self, path: str, status: int) -> None:
        """A request to this route was answered; 0 where it was not."""


class Guard:
    """ASGI middleware; counts every answer by its status."""

    def __init__(self, app: ASGIApp, service: Guarded):
        self.app, self._service, self._options = app, service, service.options
        self._keys = Keys(service.options.keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        status = 0

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            self._check(Request(scope))
            await self.app(scope, receive, counted)
        except asyncio.CancelledError:  # the server ends before the answer, which is waited for no longer
            if not status:
                await error_response(shutting_down(), scope["path"])(scope, receive, counted)
        except Exception as error:
            if status:
                raise  # the answer has begun: uvicorn closes the connection
            info = as_api_error(error)
            if info.status >= 500 and not isinstance(error, APIError):
                log.error("a request failed", exc_info=error)
            await error_response(info, scope["path"])(scope, receive, counted)
        finally:
            path = getattr(scope.get("route"), "path", "other")
            self._service.count(path, status)

    def _check(self, request: Request) -> None:
        options, headers = self._options, request.headers
        host = headers.get("host", "")
        if options.hosts and _name(f"//{host}") not in options.hosts:
            # a page whose name was made to point here must not read answers
            raise APIError(403, "this server is not known by that name; see --host and --no-auth", code="wrong_host")
        if self._keys:
            # the path as it is routed: a URL would be put together with whatever the Host header holds
            path = request.scope["path"]
            free = path in OPEN or request.method == "OPTIONS" or options.page and (path == "/" or path.startswith(PAGE))
            if not free and not self._keys.admit(headers.get("authorization", "")):
                raise APIError(401, "the API key is missing or wrong; send it as Authorization: Bearer KEY", code="invalid_api_key")
        elif (origin := headers.get("origin")) and not _own(origin, host, options):
            raise APIError(403, "pages of that origin may not ask here; name it with --cors", code="wrong_origin")


def _own(origin: str, host: str, options: ServeOptions) -> bool:
    return origin in options.cors or "*" in options.cors or origin.partition("://")[2] == host


def _name(url: str) -> str | None:
    """The host that a URL names; None for what is no URL, such as half an IPv6 address."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def error_response(error: APIError, path: str = "") -> Response:
    """The contract's error object, or Ollama's, which is a text."""
    body = {"error": error.message} if path.startswith("/api/") else error.body()
    return json_response(body, error.status, error.headers)


def json_response(body: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Lone surrogates cannot come up: what is said was decoded from UTF-8."""
    return Response(json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(), status, headers, media_type="application/json")


async def read_body(request: Request, limits: Limits) -> bytes:
    """The whole body; APIError 413 for one that is too large, 408 for one that does not come."""
    declared = request.headers.get("content-length", "0")
    if declared.isascii() and declared.isdecimal() and int(declared[:20]) > limits.body:
        raise _too_large(limits)
    body = bytearray()
    try:
        async with asyncio.timeout(limits.arrival):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limits.body:
                    raise _too_large(limits)
    except TimeoutError:
        raise APIError(408, "the request's body did not arrive in time", code="timeout", retry_after=1) from None
    return bytes(body)


def _too_large(limits: Limits) -> APIError:
    return APIError(413, f"the request's body is larger than {limits.body:,} bytes", code="body_too_large")
