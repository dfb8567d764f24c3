"""HTTP/1.1 as uvicorn speaks it, less patient: headers must come in time, and what is not HTTP is answered in JSON."""

import asyncio
import json
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from townhall.server.errors import APIError

MOST_CONNECTIONS = 512
ARRIVAL = 15.0  # seconds for a request's line and headers


class Protocol(H11Protocol):
    """One connection."""

    arrival = ARRIVAL

    def __init__(self, *arguments: Any, **named: Any):
        super().__init__(*arguments, **named)
        self._hurry: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.close()
        else:
            self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_hurrying()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        # h11 has a limit for headers that are still incomplete, but takes any that come in one piece
        if self.conn.their_state is h11.IDLE and self._oversized(self.conn.trailing_data[0] + data):
            return self._refuse(APIError(431, "the request's headers are too large", code="headers_too_large"))
        super().data_received(data)
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self._expect_headers()
        else:
            self._stop_hurrying()

    def send_400_response(self, msg: str) -> None:
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE) or (
            self.cycle and self.cycle.response_started and not self.cycle.response_complete
        ):
            self.transport.close()  # an answer is on its way already
        else:
            self._refuse(APIError(400, "this is no HTTP request", code="invalid_http"))

    def _oversized(self, received: bytes) -> bool:
        end = received.find(b"\r\n\r\n")
        return (len(received) if end < 0 else end) > (self.config.h11_max_incomplete_event_size or 0) > 0

    def _refuse(self, error: APIError) -> None:
        """Answer without the application, and close."""
        body = json.dumps(error.body()).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), (b"connection", b"close")]
        events = [
            h11.Response(status_code=error.status, headers=headers, reason=STATUS_PHRASES[error.status]),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ]
        for event in events:
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _expect_headers(self) -> None:
        if self._hurry is None:
            self._hurry = self.loop.call_later(self.arrival, self._too_late)

    def _stop_hurrying(self) -> None:
        if self._hurry is not None:
            self._hurry.cancel()
            self._hurry = None

    def _too_late(self) -> None:
        self._hurry = None
        if self.transport.is_closing():
            return
        if self.conn.our_state is h11.IDLE and self.conn.trailing_data[0]:
            self._refuse(APIError(408, "the request's headers did not arrive in time", code="timeout"))
        else:
            self.transport.close()
