"""What layers with a sliding window keep of a cache: not the whole context.

A token sees no further back than its layer's window, so rows older than that go back to the system, in memory of the CPU. Positions keep
their places: kernels need not know of it. What stays is the beginning, where a persona stands and to which a conversation returns when its
window is full, and a margin behind the window, so that a reply can be taken back and said anew. A conversation that goes back further than
the margin, to a position behind the beginning, is read again from there: the entries are those of a fresh prefill.
"""

import mmap
from collections.abc import Iterable, Sequence

import numpy as np
from tinygrad import Tensor

from ext.tinygrad import buffers
from ext.tinygrad.kernels.packed import memory

BEGINNING = 1024  # positions from the first on that stay
MARGIN = 512  # positions that a conversation can go back, and go on from, without reading anything again
STEP = 128  # positions that are given back at a time
PASS = 128  # positions that a pass may write beyond what counts, padding included

Gap = tuple[int, int]  # positions from the first on, and below the second, that layers with a window do not hold
NO_GAP = (0, 0)


def most_rows(rows: int, window: int, row_bytes: int) -> int:
    """Rows of such a layer that take memory at any time, of a cache of so many; a window of 0 is none.

    `row_bytes`: of a row of one head. Only whole pages can be given back."""
    if not window:
        return rows
    partial_pages = -(-2 * mmap.PAGESIZE // row_bytes)
    return min(rows, BEGINNING + window + MARGIN + STEP + PASS + partial_pages)


class WindowRows:
    """Which rows the layers with a window hold in one cache; layers without one hold all of them."""

    def __init__(self, window: int, tensors: Iterable[Tensor]):
        """`window`: the longest of those layers; `tensors`: their keys and values, (KvH, rows, Hd) each, in memory of the CPU."""
        self.window = window
        self._tensors = list(tensors)
        self.start = self.stop = BEGINNING

    def also(self, tensors: Iterable[Tensor]) -> None:
        """Other tensors of the same rows."""
        self._tensors += tensors

    def reachable(self, n: int) -> int:
        """Up to n, the most positions that can be gone on from: those which the next token sees are all held."""
        if self.start == self.stop or n <= self.start or n >= self.stop + self.window - 1:
            return n
        return self.start

    def grown(self, held: int) -> None:
        """So many positions are held by now: what is too old goes."""
        if (until := held - self.window - MARGIN) - self.stop < STEP:
            return
        self._clear(self.stop, until, self.start)
        self.stop = until

    def truncated(self, n: int) -> None:
        """Positions from n on were forgotten, n reachable; they are written again from there on."""
        if n <= self.start:
            self.start = self.stop = BEGINNING

    def removed(self, start: int, stop: int) -> None:
        """Positions start … stop - 1 were taken out, and what follows moved down."""
        self.start, self.stop = (p if p < start else max(start, p - (stop - start)) for p in (self.start, self.stop))
        if self.start == self.stop:
            self.start = self.stop = BEGINNING
        else:
            self._clear(self.start, self.stop)  # what moved there counts nowhere, and took memory

    def filled(self, gap: Gap) -> None:
        """The rows are written anew, those of `gap` left out."""
        self.start, self.stop = gap if gap != NO_GAP else (BEGINNING, BEGINNING)
        self._clear(self.start, self.stop)

    def gap_of(self, n: int) -> Gap:
        """What is missing of the first n positions, n reachable."""
        return NO_GAP if n <= self.start or self.start == self.stop else (self.start, self.stop)

    def leaves(self, gap: Gap, n: int) -> bool:
        """Could n positions without those of `gap` be gone on from?"""
        return 0 <= gap[0] < gap[1] <= n + 1 - self.window

    def stretches(self, first: int, last: int, apart: int) -> list[tuple[int, int]]:
        """What is held of positions first … last - 1, in order; a gap that is no longer than `apart` is none."""
        if self.stop - self.start <= apart:
            return [(first, last)]
        parts = [(first, min(last, self.start)), (max(first, self.stop), last)]
        return [(a, b) for a, b in parts if a < b]

    def held(self, n: int) -> list[slice]:
        """Of the first n positions, n reachable, the rows that count."""
        start, stop = self.gap_of(n)
        return [slice(0, start), slice(stop, n)] if stop else [slice(0, n)]

    def _clear(self, first: int, last: int, cleared: int | None = None) -> None:
        """Give back rows first … last - 1; those from `cleared` on went before, but for a part of a page, which may go as a whole now."""
        for tensor in self._tensors:
            for head in buffers.view(tensor):
                row, rows = head[0].nbytes, head.reshape(-1).view(np.uint8)
                start = first * row
                if cleared is not None and (page := start - (rows.ctypes.data + start) % mmap.PAGESIZE) >= cleared * row:
                    start = page
                memory.clear(rows[start : last * row])


def longest(windows: Sequence[int], device: str) -> int:
    """The window that decides what a cache there keeps, of the layers' (0: none); 0 where all of it stays."""
    return max(windows, default=0) if device == "CPU" and memory.GIVES_BACK else 0
