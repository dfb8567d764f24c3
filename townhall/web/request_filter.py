"""ASGI middleware before Gradio: allowed addresses, host names, and a content security policy."""

import hashlib
import re
from base64 import b64encode
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY = 4 << 20  # bytes of a request: the page sends a whole conversation back at most
_API = "/gradio_api"
# everything else of Gradio's (files, uploads, proxies, docs, monitoring) is not there
_EXACT = {
    "/",
    "/theme.css",
    "/config",
    f"{_API}/app_id",
    f"{_API}/queue/join",
    f"{_API}/queue/data",
    f"{_API}/reset",
    f"{_API}/cancel",
    f"{_API}/startup-events",
}
_BEGIN = ("/assets/", "/static/", "/own/", "/portraits/", "/chats/", f"{_API}/heartbeat/")
_SCRIPT = re.compile(rb"<script(?![^>]*\bsrc=)[^>]*>(.*?)</script>", re.DOTALL)
# what Gradio tells other sites about itself, an icon list for installing it, and a script for pages in frames
_STRAY = re.compile(
    rb'<meta\s+(?:property="og:|name="twitter:)[^>]*>|<link rel="manifest"[^>]*>|'
    rb"<script data-gradio-mode>.*?</script>\s*<script>.*?</script>",
    re.DOTALL,
)
_MODE = b'<script>window.__gradio_mode__ = "app";</script>'
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class RequestFilter:
    """ASGI middleware; `names` are hosts under which the page may be asked for, none: any."""

    def __init__(self, app: ASGIApp, names: Collection[str], head: bytes, body: bytes):
        self.app, self._names, self._head, self._body = app, names, head, body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        request = Request(scope)
        if refused := self._refusal(request):
            return await _guarded(refused)(scope, receive, send)
        if request.url.path == "/" and scope["method"] in ("GET", "HEAD"):
            return await self._page(scope, receive, send)
        await self.app(scope, _limited(receive), _with_headers(send, policy(())))

    def _refusal(self, request: Request) -> PlainTextResponse | None:
        host = request.headers.get("host", "")
        if self._names and urlsplit(f"//{host}").hostname not in self._names:
            # a page whose name was made to point here must not read what was said
            return PlainTextResponse("this page is not known by that name", 403)
        origin = request.headers.get("origin")
        if origin and origin != "null" and urlsplit(origin).netloc != host or origin == "null":
            return PlainTextResponse("pages of other origins may not ask here", 403)
        path = request.url.path
        if path not in _EXACT and not path.startswith(_BEGIN):
            return PlainTextResponse("there is nothing here", 404)
        return None

    async def _page(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Gradio's HTML without what it would fetch or tell elsewhere, and with the hashes of its own scripts in the policy."""
        plain = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
        start: Message = {}
        parts: list[bytes] = []

        async def collect(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
            else:
                parts.append(message.get("body", b""))

        # what else may be asked of Gradio in an address (other themes, states that were stored) is not there either
        await self.app({**scope, "headers": plain, "query_string": b""}, receive, collect)
        html = self._cleaned(b"".join(parts))
        headers = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
        await _with_headers(send, policy(_SCRIPT.findall(html)))(
            {**start, "headers": [*headers, (b"content-length", str(len(html)).encode()), (b"cache-control", b"no-store")]}
        )
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else html})

    def _cleaned(self, html: bytes) -> bytes:
        html = _STRAY.sub(lambda match: _MODE if b"data-gradio-mode" in match[0] else b"", html)
        html = html.replace(b"</head>", self._head + b"</head>", 1)
        return re.sub(rb"(<body[^>]*>)", lambda match: match[1] + self._body, html, count=1)


def policy(scripts: Collection[bytes]) -> str:
    """Content-Security-Policy: nothing from elsewhere, no eval, and of the scripts in the page those alone that it came with."""
    hashes = "".join(f" 'sha256-{b64encode(hashlib.sha256(script).digest()).decode()}'" for script in scripts)
    return (
        f"default-src 'none'; script-src 'self'{hashes}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; "
        "connect-src 'self'; base-uri 'self'; form-action 'none'; frame-ancestors 'none'"
    )


def _guarded(response: PlainTextResponse) -> PlainTextResponse:
    response.headers.update(HEADERS)
    return response


def _with_headers(send: Send, csp: str) -> Send:
    ours = {**HEADERS, "Content-Security-Policy": csp}

    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [pair for pair in message["headers"] if not pair[0].lower().startswith(b"access-control-")]
            message = {**message, "headers": [*kept, *((name.lower().encode(), value.encode()) for name, value in ours.items())]}
        await send(message)

    return wrapped


def _limited(receive: Receive) -> Receive:
    """A body that is too long ends as one whose sender went away."""
    read = 0

    async def wrapped() -> Message:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        return message if read <= BODY else {"type": "http.disconnect"}

    return wrapped
