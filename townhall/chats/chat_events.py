"""What happens to a chat, in order and numbered, for any number of watchers who may leave and come back."""

import asyncio
import json
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

MOST_KEPT = 4096  # events: minutes of a fast reply; who was away for longer fetches the chat anew
PATIENCE = 0.5  # seconds between two looks at whether the server ends


class EventHub:
    """Belongs to the event loop. `publish` gives an event its id; `watch` gives frames of server-sent events from an id on."""

    def __init__(self) -> None:
        self._epoch = os.urandom(3).hex()  # ids of another process say nothing here
        self._count = 0
        self._kept: deque[bytes] = deque(maxlen=MOST_KEPT)
        self._changed = asyncio.Event()
        self.watchers = 0
        self.closed = False

    @property
    def last(self) -> str:
        """The id of the newest event."""
        return f"{self._epoch}-{self._count}"

    @property
    def next(self) -> str:
        """The id that the next event will have."""
        return f"{self._epoch}-{self._count + 1}"

    def publish(self, name: str, values: Mapping[str, Any]) -> str:
        """Let the watchers have it."""
        self._count += 1
        data = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
        self._kept.append(f"id: {self.last}\nevent: {name}\ndata: {data}\n\n".encode())
        self._changed.set()
        self._changed = asyncio.Event()
        return self.last

    def close(self) -> None:
        """Watchers get what is left, and their streams end."""
        self.closed = True
        self._changed.set()

    async def watch(self, after: str | None, keep_alive: float, ending: Callable[[], bool]) -> AsyncIterator[bytes]:
        """Frames from the event after `after` on, None: from now on; until `ending` or `close`."""
        self.watchers += 1
        try:
            at = self._count if after is None else self._known(after)
            yield b": watching\n\n"  # so that a client knows at once that it is heard
            quiet = 0.0
            while not ending():
                if at is None or at < self._count - len(self._kept):
                    yield f"id: {self.last}\nevent: reload\ndata: {{}}\n\n".encode()
                    at = self._count
                    continue
                if at < self._count:
                    frames = [self._kept[n - self._count - 1] for n in range(at + 1, self._count + 1)]
                    at, quiet = self._count, 0.0
                    yield b"".join(frames)
                    continue
                if self.closed:
                    return
                changed = self._changed
                try:
                    async with asyncio.timeout(PATIENCE):
                        await changed.wait()
                except TimeoutError:
                    quiet += PATIENCE
                    if quiet >= keep_alive:
                        quiet = 0.0
                        yield b": keep-alive\n\n"
        finally:
            self.watchers -= 1

    def _known(self, event: str) -> int | None:
        """The number of an event of this hub; None for any other."""
        epoch, _, number = event.partition("-")
        if epoch != self._epoch or not number.isdecimal() or len(number) > 15 or int(number) > self._count:
            return None
        return int(number)
