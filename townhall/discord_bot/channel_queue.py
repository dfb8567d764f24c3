"""Work of a channel in its order: one piece at a time, any number of channels at once."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

GRACE = 10.0  # seconds in which what is under way may come to its end


@dataclass(eq=False)
class ChannelWork:
    """Something to do in a channel."""

    run: Callable[["ChannelWork"], Awaitable[object]]
    message: int = 0  # that it answers
    user: int = 0
    stopped: bool = False
    withdrawn: bool = False  # the message is gone, so that nothing is to answer it any more
    on_stop: Callable[[], object] | None = None  # has what is under way end soon

    def stop(self) -> None:
        """Have it end, with what there is."""
        self.stopped = True
        if self.on_stop:
            self.on_stop()


class ChannelQueues:
    """A task for each channel in which there is something to do; it ends with its queue."""

    def __init__(self, most_waiting: int, most_of_one: int, failed: Callable[[BaseException], object]):
        """`failed` gets what a piece of work raised; the next one is done all the same."""
        self._most_waiting, self._most_of_one, self._failed = most_waiting, most_of_one, failed
        self._waiting: dict[int, deque[ChannelWork]] = {}
        self._current: dict[int, ChannelWork] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def put(self, channel: int, work: ChannelWork) -> bool:
        """False where too much is waiting already."""
        waiting = self._waiting.setdefault(channel, deque())
        if len(waiting) >= self._most_waiting or sum(other.user == work.user for other in waiting) >= self._most_of_one:
            return False
        waiting.append(work)
        if channel not in self._tasks:
            self._tasks[channel] = asyncio.create_task(self._work(channel), name=f"discord channel {channel}")
        return True

    def waiting(self, channel: int) -> int:
        """Pieces of work that were not begun yet."""
        return len(self._waiting.get(channel, ()))

    def cancel(self, channel: int, message: int) -> None:
        """The message is gone: forget it, or stop what is being done about it."""
        waiting = self._waiting.get(channel, deque())
        for work in [work for work in waiting if work.message == message]:
            waiting.remove(work)
        current = self._current.get(channel)
        if current and current.message == message:
            current.withdrawn = True
            current.stop()

    def clear(self, channel: int) -> None:
        """Forget all that waits there, and stop what is being done."""
        self._waiting.get(channel, deque()).clear()
        if current := self._current.get(channel):
            current.stop()

    async def close(self, grace: float = GRACE) -> None:
        """Stop everything; returns when what was begun has ended, after `grace` seconds at the latest."""
        for channel in list(self._tasks):
            self.clear(channel)
        if tasks := list(self._tasks.values()):
            _, late = await asyncio.wait(tasks, timeout=grace)
            for task in late:  # the network is gone, say
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _work(self, channel: int) -> None:
        waiting = self._waiting[channel]
        try:
            while waiting:
                work = self._current[channel] = waiting.popleft()
                try:
                    await work.run(work)
                except Exception as error:
                    self._failed(error)
        finally:
            self._current.pop(channel, None)
            del self._tasks[channel], self._waiting[channel]
