"""A request on its way to a replica and back: asked again where the replica is lost before a word, ended with an error where amid them."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Protocol

from starlette.responses import Response, StreamingResponse

from townhall.server.errors import APIError
from townhall.server.event_stream import DONE, error_frame
from townhall.server.guard import error_response
from townhall.swarm.forwarding import AnswerStart, ForwardedRequest
from townhall.swarm.front_metrics import FrontMetrics
from townhall.swarm.prefix_digests import with_reply
from townhall.swarm.reply_reader import ReplyReader
from townhall.swarm.request_log import RequestLog

REPLICA = "X-Townhall-Replica"
ATTEMPTS = 3
STREAMS = (b"text/event-stream", b"application/x-ndjson")
LOST = "the replica that wrote this answer was lost; ask again"


class ReplicaLost(Exception):
    """The process or machine that was to answer is gone."""


class RoutedAnswer(Protocol):
    """An answer under way; `replica` and `outcome` are known once its start has come."""

    replica: str | None
    outcome: str

    def __aiter__(self) -> AsyncIterator[AnswerStart | bytes]:
        """The start, then the body. ReplicaLost, or APIError."""

    def remember(self, digest: bytes) -> None:
        """The replica holds what this is the digest of."""

    def close(self) -> None:
        """Nothing more of it is wanted, or it is complete."""


class Relay:
    """Sends a request, and makes the response of what comes back."""

    def __init__(
        self,
        id: str,
        client: Any,
        request: ForwardedRequest,
        digests: list[bytes],
        log: RequestLog,
        metrics: FrontMetrics,
        arrived: float,
    ):
        self._id, self._client, self._request, self._digests = id, client, request, digests
        self._log, self._metrics, self._arrived = log, metrics, arrived
        chat = request.path.endswith("/chat/completions") and digests
        self._reader = ReplyReader() if chat else None

    async def response(self, seconds: float) -> Response:
        """The answer; APIError where no replica gave one in time."""
        for attempt in range(1, ATTEMPTS + 1):
            answer = self._client.ask(self._request, self._digests)
            try:
                async with asyncio.timeout(max(0.0, self._arrived + seconds - time.monotonic())):
                    return await self._begun(answer)
            except ReplicaLost:
                self._note("retry", answer, attempt=attempt)
                self._metrics.retried.labels(self._client.name).inc()
                answer.close()
            except BaseException as error:
                timeout = isinstance(error, TimeoutError)
                self._ended(answer, None, "timeout" if timeout else "left" if isinstance(error, asyncio.CancelledError) else "error")
                if timeout:
                    raise APIError(408, "no replica answered in time", code="timeout", retry_after=5) from error
                raise
        raise APIError(503, "the replicas of this model are lost one after another; see their logs", code="replica_lost", retry_after=5)

    async def _begun(self, answer: Any) -> Response:
        pieces = aiter(answer)
        start = await anext(pieces, None)
        if not isinstance(start, AnswerStart):
            raise ReplicaLost
        self._note("begin", answer)
        headers = [(name, value) for name, value in start.headers if name.lower() != b"content-length"]
        headers.append((REPLICA.lower().encode(), f"{self._client.name}#{start.replica}".encode()))
        kind = next((value for name, value in headers if name.lower() == b"content-type"), b"")
        if kind.startswith(STREAMS):
            response: Response = StreamingResponse(self._stream(answer, pieces, start, kind), start.status)
        else:
            body = b"".join([piece async for piece in pieces])
            if self._reader and start.status == 200:
                self._reader.whole(body)
                self._remember(answer)
            self._ended(answer, start.status, "done")
            response = Response(body, start.status)
            headers.append((b"content-length", str(len(body)).encode()))
        response.raw_headers = headers
        return response

    async def _stream(self, answer: Any, pieces: AsyncIterator[Any], start: AnswerStart, kind: bytes) -> AsyncIterator[bytes]:
        how, events = "left", 0
        try:
            async for piece in pieces:
                events += piece.count(b"\n\n")
                if self._reader:
                    self._reader.push(piece)
                    if piece.endswith(DONE):  # before the client knows: its next request may be here at once
                        self._remember(answer)
                yield piece
            how = "done"
        except ReplicaLost:
            how = "lost"
            self._metrics.lost.labels(self._client.name, start.replica).inc()
            yield self._last_words(kind, events)
        except APIError as error:
            how = "error"
            yield self._last_words(kind, events, error)
        finally:
            self._ended(answer, start.status, how)

    def _remember(self, answer: Any) -> None:
        if self._reader and self._reader.text:
            answer.remember(with_reply(self._digests[-1], self._reader.text))

    def _last_words(self, kind: bytes, events: int, error: APIError | None = None) -> bytes:
        """The error that ends a stream, as clients of this path read it."""
        error = error or APIError(502, LOST, code="replica_lost")
        if not kind.startswith(STREAMS[0]):
            return bytes(error_response(error, "/api/").body) + b"\n"
        if self._request.path.endswith("/responses"):
            said = {"type": "error", "code": error.code, "message": error.message, "param": None, "sequence_number": events}
            return b"event: error\ndata: " + json.dumps(said).encode() + b"\n\n"
        return error_frame(error) + DONE

    def _note(self, event: str, answer: Any, **fields: Any) -> None:
        self._log.write(
            event, self._id, model=self._client.name, replica=answer.replica, path=self._request.path, conversation=answer.outcome, **fields
        )

    def _ended(self, answer: Any, status: int | None, how: str) -> None:
        with suppress(ValueError):  # a log on a full disk must not cost an answer
            self._note("end", answer, status=status, how=how, seconds=round(time.monotonic() - self._arrived, 3))
        self._metrics.answered.labels(self._client.name, answer.replica or "none", str(status or 0)).inc()
        if self._digests:
            self._metrics.routed.labels(self._client.name, answer.outcome).inc()
        answer.close()
