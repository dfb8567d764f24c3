"""Writes a streaming reply into a document: its first words at once, more a few times a second, the next cue at its end."""

import time

from townhall.watch.document import Document

INTERVAL = 0.04  # seconds between two writes: as fast as eyes follow, slow enough for an editor that loads the file anew each time


class ReplyWriter:
    """Writes below what stands in `document`; every write may raise Changed. `said` is all that it was given."""

    def __init__(self, document: Document, lead: str):
        self._document, self._held, self.said = document, lead, ""
        self._written = 0.0  # when

    def write(self, piece: str) -> None:
        """Take the next words."""
        self.said += piece
        self._held += piece
        if self.said and time.monotonic() - self._written >= INTERVAL:
            self._flush()

    def end(self, tail: str) -> None:
        """Write what is left, and `tail` in the same stroke."""
        self._held += tail
        self._flush()

    def _flush(self) -> None:
        if self._held:
            self._document.append(self._held)
        self._held, self._written = "", time.monotonic()
