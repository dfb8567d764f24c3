"""A streamed chat as it came, to be read when all of it is there.

A client that reads JSON while it waits takes a tenth of the two cores that it shares with the server it measures: an eighth of the rate of
sixteen replies at once.
"""

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import h11

from bench.served import Served

SEGMENT = 1 << 16  # bytes read at once


@dataclass
class Recording:
    """When a chat was asked, and each piece of the response with the time of its arrival, by perf_counter."""

    asked: float
    connection: h11.Connection
    pieces: list[tuple[float, bytes]] = field(default_factory=list)

    def chunks(self) -> Iterator[tuple[float, dict[str, Any]]]:
        """The chunks of the stream, each with the time when the last of its bytes came. RuntimeError for an answer that is an error."""
        rest = b""
        for arrived, data in self.pieces:
            self.connection.receive_data(data)
            while (event := self.connection.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                if isinstance(event, h11.Response) and event.status_code != 200:
                    raise RuntimeError(f"the server answered {event.status_code}: {b''.join(data for _, data in self.pieces)[-300:]!r}")
                if isinstance(event, h11.Data):
                    *lines, rest = (rest + bytes(event.data)).split(b"\n")
                    for line in lines:
                        if line.startswith(b"data: {"):
                            yield arrived, json.loads(line.removeprefix(b"data: "))
                if isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
                    return


async def record(served: Served, body: dict[str, Any]) -> Recording:
    """Ask for a streamed chat, and take down what comes until the server closes the connection."""
    place = urlsplit(f"{served.url}/chat/completions")
    asked = json.dumps({"model": served.model, "stream": True, "stream_options": {"include_usage": True}, **body}).encode()
    headers = {"Host": place.netloc, "Content-Type": "application/json", "Content-Length": str(len(asked)), "Connection": "close"}
    connection = h11.Connection(h11.CLIENT)
    request = h11.Request(method="POST", target=place.path, headers=list(headers.items()))
    sent = b"".join(filter(None, (connection.send(event) for event in (request, h11.Data(data=asked), h11.EndOfMessage()))))
    recording = Recording(time.perf_counter(), connection)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    try:
        writer.write(sent)
        while data := await reader.read(SEGMENT):
            recording.pieces.append((time.perf_counter(), data))
    finally:
        writer.close()
    return recording
