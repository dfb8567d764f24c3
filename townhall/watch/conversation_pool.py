"""Answerers by file, with their KV caches, kept between saves within a memory budget."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

from townhall.watch.answerers import Answerer

MOST_BYTES = 2 << 30  # of all caches


class ConversationPool:
    """`open` makes an answerer; the least recently used ones go when there are more than `most`, or their caches are too large."""

    def __init__(self, open: Callable[[Any], Answerer], most: int, most_bytes: int = MOST_BYTES):
        self._open, self.most, self.most_bytes = open, most, most_bytes
        self._seats: OrderedDict[Path, tuple[Hashable, Answerer]] = OrderedDict()

    def seat(self, path: Path, key: Hashable) -> Answerer:
        """The answerer of the file at `path`; a new one where `key`, all that it is opened with, is another than before."""
        if path not in self._seats or self._seats[path][0] != key:
            self.leave(path)
            self._let_go(self.most - 1)  # before another takes the memory
            self._seats[path] = key, self._open(key)
        self._seats.move_to_end(path)
        self._let_go(self.most)
        return self._seats[path][1]

    def leave(self, path: Path) -> None:
        """The file is gone."""
        self._seats.pop(path, None)

    def clear(self) -> None:
        """All that is kept goes."""
        self._seats.clear()

    def __len__(self) -> int:
        return len(self._seats)

    def _let_go(self, most: int) -> None:
        while len(self._seats) > max(0, most) or (len(self._seats) > 1 and self._bytes() > self.most_bytes):
            self._seats.popitem(last=False)

    def _bytes(self) -> int:
        return sum(answerer.nbytes for _, answerer in self._seats.values())
