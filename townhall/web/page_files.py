"""The page's files as an application part: read once, compressed once, cached by browsers, under a strict content security policy."""

import gzip
import hashlib
import re
from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from townhall.web.avatars import portrait

ASSETS = Path(__file__).parent / "assets"
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".json": "application/json",
    ".woff2": "font/woff2",
}
PLAIN_KINDS = {".woff2"}  # compressed already
SAVING = 512  # bytes: smaller files are sent as they are
# styles are set through the CSSOM, which the policy allows; nothing is inline and nothing comes from elsewhere
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_COMMENT = re.compile(r"^[ \t]*(?://[^\n]*|/\*\*.*?\*/[ \t]*)$", re.MULTILINE | re.DOTALL)
_INDENT = re.compile(r"^[ \t]+", re.MULTILINE)
_IMPORT = re.compile(r'^\s*(?:import|export)\b[^"\';]*?(?:from\s*)?"(\.[^"]+)"', re.MULTILINE)


class PageFiles:
    """Every file of the page in memory. Addresses hold a digest of all of them, so that a browser asks for a file once in a version."""

    def __init__(self, folder: Path = ASSETS):
        paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
        self.files = {name: _lean(path.read_text()) if name.startswith("js/") else path.read_bytes() for name, path in paths.items()}
        digest = hashlib.sha256()
        for name, data in self.files.items():
            digest.update(name.encode() + b"\0" + hashlib.sha256(data).digest())
        self.version = digest.hexdigest()[:12]
        preloads = "".join(f'<link rel="modulepreload" href="page/{self.version}/{name}">' for name in self.reachable("js/main.js"))
        index = self.files.pop("index.html").decode().replace("{version}", self.version).replace("<!--preloads-->", preloads)
        self.index = index.encode()
        self._compressed = cache(lambda name: gzip.compress(self.index if name == "index.html" else self.files[name], 9, mtime=0))

    def reachable(self, name: str) -> list[str]:
        """A module and all that it imports before it runs, nearest first; what is imported on demand is left out."""
        found = [name]
        for module in found:
            folder = Path(module).parent
            for target in _IMPORT.findall(self.files[module].decode()):
                path = _normal(folder / target)
                if path not in found:
                    found.append(path)
        return found

    def compressed(self, name: str) -> bytes:
        """A file's gzip form."""
        return self._compressed(name)

    def response(self, request: Request, name: str, data: bytes, forever: bool) -> Response:
        """One file: compressed where the client takes that, 304 where it has it."""
        etag = f'"{hashlib.sha256(data).hexdigest()[:20]}"'
        headers = {
            **HEADERS,
            "ETag": etag,
            "Vary": "Accept-Encoding",
            "Cache-Control": "public, max-age=31536000, immutable" if forever else "no-cache",
        }
        if etag in [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]:
            return Response(None, 304, headers)
        suffix = Path(name).suffix
        if suffix not in PLAIN_KINDS and len(data) >= SAVING and "gzip" in request.headers.get("accept-encoding", ""):
            data, headers["Content-Encoding"] = self.compressed(name), "gzip"
        headers["Content-Type"] = KINDS[suffix]
        return Response(data, 200, headers)

    def routes(self) -> list[Route]:
        """The page at /, its files under /page/, and portraits."""

        async def index(request: Request) -> Response:
            return self.response(request, "index.html", self.index, False)

        async def file(request: Request) -> Response:
            name = request.path_params["name"]
            if (data := self.files.get(name)) is None:
                return PlainTextResponse("there is no such file", 404, HEADERS)
            # a tab from before an update may still ask for a part of the version that it was opened with
            return self.response(request, name, data, request.path_params["version"] == self.version)

        async def face(request: Request) -> Response:
            data = portrait(request.path_params["id"]).encode(errors="replace")
            return Response(data, 200, {**HEADERS, "Content-Type": KINDS[".svg"], "Cache-Control": "no-cache"})

        return [
            Route("/", index),
            Route("/page/{version}/{name:path}", file),
            Route("/portraits/{id}.svg", face),
        ]


def _lean(script: str) -> bytes:
    """A script without its indentation and the comments that have lines of their own; the number of its lines stays."""
    return _INDENT.sub("", _COMMENT.sub(lambda comment: "\n" * comment[0].count("\n"), script)).encode()


def _normal(path: Path) -> str:
    """A relative path without its `..` parts."""
    parts: list[str] = []
    for part in path.as_posix().split("/"):
        if part == "..":
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)
