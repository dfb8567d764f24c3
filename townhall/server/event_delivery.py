"""From the engine's thread to event loops: what is said between two passes is handed over in one call.

A call for every event wakes the loop's thread in the midst of a round, and the two then take the interpreter from each other: of sixteen
answers each next token came a millisecond later. Nor may the loop's thread wait for a core until the next pass has ended: the model is
asked to let it run.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any


class EventDelivery:
    """Gives events to the queues of running loops: at once, or, within `keeping` on the thread that keeps, at the next `deliver`."""

    def __init__(self) -> None:
        self._kept: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Queue[Any], Any]]] = {}
        self.offer_cores: Callable[[bool], None] = lambda offered: None  # the model's, see SharesPasses
        self._keeper: int | None = None  # the thread that is within `keeping`; only it touches what is kept

    def emitter(self, events: "asyncio.Queue[Any]") -> Callable[[Any], None]:
        """What puts an event into a queue of the running loop, from any thread."""
        loop = asyncio.get_running_loop()

        def emit(event: Any) -> None:
            if threading.get_ident() == self._keeper:
                self._kept.setdefault(loop, []).append((events, event))
            else:
                _call(loop, events.put_nowait, event)

        return emit

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Within, what this thread emits is kept; all of it is delivered at the end, whatever happens."""
        self._keeper = threading.get_ident()
        try:
            yield
        finally:
            self.deliver()
            self._keeper = None

    def deliver(self) -> None:
        """Hand over what this thread keeps, in its order: before a pass, which takes its time, and before other word."""
        if threading.get_ident() == self._keeper and self._kept:
            kept, self._kept = self._kept, {}
            for loop, events in kept.items():
                self.offer_cores(True)
                _call(loop, self._put, events)

    def _put(self, events: "Sequence[tuple[asyncio.Queue[Any], Any]]") -> None:
        for queue, event in events:
            queue.put_nowait(event)
        asyncio.get_running_loop().call_soon(self.offer_cores, False)  # after the tasks that these events wake, which send them


def _call(loop: asyncio.AbstractEventLoop, function: Callable[[Any], None], argument: Any) -> None:
    with suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(function, argument)
