"""A request that travels to a replica, and an ASGI application that is called with it there."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

from starlette.types import ASGIApp, Message

PATIENCE = 10.0  # seconds that an application has to notice that its client went
# of the connection, or of who may ask, which was decided before
DROPPED_HEADERS = frozenset({b"authorization", b"connection", b"content-length", b"keep-alive", b"transfer-encoding", b"upgrade"})

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class ForwardedRequest:
    """A request with its whole body; header names in lower case."""

    method: str
    path: str
    query: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""

    @classmethod
    def of(cls, method: str, path: str, query: bytes, headers: Headers, body: bytes) -> "ForwardedRequest":
        """Without the headers that end at this hop."""
        kept = [(name, value) for name, value in headers if name not in DROPPED_HEADERS]
        return cls(method, path, query, (*kept, (b"content-length", str(len(body)).encode())), body)


@dataclass(frozen=True)
class AnswerStart:
    """How an answer begins, and whose it is."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    replica: str


async def call(app: ASGIApp, request: ForwardedRequest, replica: str) -> AsyncIterator[AnswerStart | bytes]:
    """The answer's start, then its body as it comes; what is there already comes in one piece.

    Where the iterator is closed or cancelled the application sees its client leave. An error of the application is raised.
    """
    messages: asyncio.Queue[Message | None] = asyncio.Queue()
    arrived: list[Message] = [{"type": "http.request", "body": request.body, "more_body": False}]
    left = asyncio.Event()

    async def receive() -> Message:
        if arrived:
            return arrived.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        messages.put_nowait(message)

    async def run() -> None:
        try:
            await app(_scope(request), receive, send)
        finally:
            messages.put_nowait(None)

    task = asyncio.create_task(run())
    try:
        going = True
        while going:
            body = bytearray()
            got = [await messages.get()]
            while not messages.empty():
                got.append(messages.get_nowait())
            for message in got:
                if message is None:
                    going = False
                elif message["type"] == "http.response.start":
                    yield AnswerStart(message["status"], tuple(message.get("headers", ())), replica)
                elif message["type"] == "http.response.body":
                    body += message.get("body", b"")
            if body:
                yield bytes(body)
        await task
    finally:
        left.set()
        if not task.done():
            with suppress(asyncio.TimeoutError, asyncio.CancelledError, Exception):
                await asyncio.wait_for(task, PATIENCE)


def _scope(request: ForwardedRequest) -> dict[str, object]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": request.path,
        "raw_path": request.path.encode(),
        "query_string": request.query,
        "root_path": "",
        "headers": list(request.headers),
        "client": None,
        "server": None,
    }
