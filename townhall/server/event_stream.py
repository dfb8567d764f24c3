"""From the engine's events to bytes: waiting for an answer while its client is there, and streams that never end in silence."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from townhall.server.errors import APIError, as_api_error, shutting_down
from townhall.server.job import AnswerEnd, Event, JobDone, JobFailed, RequestFigures, TextEvent
from townhall.server.model_embeddings import Embedded
from townhall.server.responses import ResponseBuilder

DONE = b"data: [DONE]\n\n"
GONE = object()  # in the queue of events: the client went away
# proxies that hold a stream back would defeat it
SSE = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}

Events = asyncio.Queue[Any]


@asynccontextmanager
async def _watched(request: Request, events: Events) -> AsyncIterator[None]:
    """Within, GONE comes into the queue when the client goes."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        events.put_nowait(GONE)

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


async def whole(request: Request, events: Events, add: Callable[[TextEvent | AnswerEnd], object]) -> RequestFigures:
    """Hand every event to `add` until the answers are complete; APIError where they failed, or the client went."""
    async with _watched(request, events):
        while True:
            event = await events.get()
            if isinstance(event, TextEvent | AnswerEnd):
                add(event)
            elif isinstance(event, JobDone):
                return event.figures
            else:
                raise _ended(event)


async def vectors(request: Request, events: Events) -> Embedded:
    """What comes of an `EmbeddingWork`; APIError as for `whole`."""
    async with _watched(request, events):
        event = await events.get()
        if isinstance(event, Embedded):
            return event
        raise _ended(event)


def _ended(event: Any) -> APIError:
    return event.error if isinstance(event, JobFailed) else APIError(408, "the client went away")  # which is not read


async def arriving(events: Events, keep_alive: float) -> AsyncIterator[Event | None]:
    """The events up to the last; None where there was none for `keep_alive` seconds."""
    while True:
        try:
            async with asyncio.timeout(keep_alive):
                event: Event = await events.get()
        except TimeoutError:
            yield None
            continue
        if not events.empty():
            await asyncio.sleep(0)  # a late reader must not block the loop, nor go on writing to a client that has gone
        yield event
        if isinstance(event, JobDone | JobFailed):
            return


async def stream(
    events: "asyncio.Queue[Event]", reply: ResponseBuilder, with_usage: bool, choices: int, keep_alive: float
) -> AsyncIterator[bytes]:
    """Server-sent events: each choice's opening, pieces and end, then usage where it was asked for, then [DONE]; or an error."""

    def frame(chunk: dict[str, Any]) -> bytes:
        return data_frame({"usage": None, **chunk} if with_usage else chunk)

    ended: list[AnswerEnd] = []
    if opening := reply.opening(0):
        yield frame(opening)
    async for event in arriving(events, keep_alive):
        if event is None:
            yield b": keep-alive\n\n"
        elif isinstance(event, TextEvent):
            for chunk in reply.pieces(event):
                yield frame(chunk)
        elif isinstance(event, AnswerEnd):
            ended.append(event)
            if len(ended) < choices:
                for chunk in reply.ends(event):
                    yield frame(chunk)
                if opening := reply.opening(event.index + 1):
                    yield frame(opening)
        elif isinstance(event, JobDone):
            # the receipt goes with the last chunk that every client reads
            *before, last = reply.ends(ended[-1])
            for chunk in before:
                yield frame(chunk)
            yield frame(last | {"townhall": reply.receipt(event.figures)})
            if with_usage:
                yield frame(reply.usage_chunk(event.figures))
        else:
            yield error_frame(event.error)
    yield DONE


def data_frame(chunk: Mapping[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + json.dumps(chunk, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def error_frame(error: Exception) -> bytes:
    """The error object, as a server-sent event."""
    return b"data: " + json.dumps(as_api_error(error).body(), ensure_ascii=False).encode() + b"\n\n"


class EventStream(StreamingResponse):
    """Calls `cancel` when the last of it is sent, or the client has gone, or the server ends: silence would be taken for an end."""

    def __init__(
        self,
        content: AsyncIterator[bytes],
        headers: Mapping[str, str],
        cancel: Callable[[], object],
        last: Callable[[APIError], bytes] = lambda error: error_frame(error) + DONE,
    ):
        """`last` is what the server says where it ends before the stream does."""
        super().__init__(content, headers={**SSE, **headers})
        self._cancel, self._last = cancel, last

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except asyncio.CancelledError:
            await send({"type": "http.response.body", "body": self._last(shutting_down()), "more_body": False})
        finally:
            self._cancel()
