"""The text of a chat's answer, read from the bytes that go by."""

import json
from typing import Any


class ReplyReader:
    """Takes the body of a chat completion piece by piece or whole; `text` is the first choice's, as its client will send it back."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._rest = b""

    def push(self, piece: bytes) -> None:
        """More of a stream's body: server-sent events."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data: {"):
                self._add(line.removeprefix(b"data: "), "delta")

    def whole(self, body: bytes) -> None:
        """A whole body: one JSON object."""
        self._add(body, "message")

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    def _add(self, line: bytes, key: str) -> None:
        try:
            found: Any = json.loads(line)
            choice = found["choices"][0]
            content = choice[key].get("content") if choice["index"] == 0 else None
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            return  # an error, usage, or no chat
        if isinstance(content, str):
            self._pieces.append(content)
