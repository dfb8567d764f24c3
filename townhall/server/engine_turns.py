"""Whose turn it is on the devices of this process: engines of several models run a pass at a time, one after the other."""

import threading
from types import TracebackType


class EngineTurns:
    """A lock that is had in the order in which it was asked for; not to be asked for twice by one thread.

    tinygrad captures graphs into what all threads share, so that no two engines may run at the same time.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._tickets = self._turn = 0  # given out so far; whose it is

    def __enter__(self) -> "EngineTurns":
        with self._changed:
            ticket, self._tickets = self._tickets, self._tickets + 1
            while self._turn != ticket:
                self._changed.wait()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._changed:
            self._turn += 1
            self._changed.notify_all()

    def pass_on(self) -> None:
        """Let those who wait go first; to be called by the thread whose turn it is, between two passes or two matrices."""
        if self._tickets > self._turn + 1:
            self.__exit__(None, None, None)
            self.__enter__()
