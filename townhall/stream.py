"""Text on its way to the screen: stop strings that arrive in pieces are held back, and a reply's ends are trimmed."""

from collections.abc import Sequence


class StopFilter:
    """Passes text through up to the first stop string; whatever could still become one is held back until it is decided.

    Where stop strings overlap, the one that is complete first wins (of two complete at once, the longer), so the
    result does not depend on how the text was cut into pieces.
    """

    def __init__(self, stops: Sequence[str]):
        self.stops = tuple(stop for stop in stops if stop)
        self.stopped: str | None = None  # the stop string that was met
        self._held = ""

    def push(self, text: str) -> str:
        """Take the next piece and return what may be shown; nothing more comes once `stopped` is set."""
        if self.stopped is not None:
            return ""
        self._held += text
        if met := min(((at + len(stop), at, stop) for stop in self.stops if (at := self._held.find(stop)) >= 0), default=None):
            _, start, self.stopped = met
            shown, self._held = self._held[:start], ""
            return shown
        shown = self._held[: len(self._held) - self._undecided()]
        self._held = self._held[len(shown) :]
        return shown

    def flush(self) -> str:
        """The text has ended: what was held back turned out to be no stop string."""
        shown, self._held = self._held, ""
        return shown

    def _undecided(self) -> int:
        """Length of the longest tail that begins a stop string."""
        for length in range(min(len(self._held), max(map(len, self.stops), default=1) - 1), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self.stops):
                return length
        return 0


class EdgeTrim:
    """Drops white space before the first word and after the last; what lies between words passes a piece later.

    `begun`: the first word has been said already.
    """

    def __init__(self, begun: bool = False) -> None:
        self._begun, self._held = begun, ""

    def push(self, text: str) -> str:
        if not self._begun:
            text = text.lstrip()
            self._begun = bool(text)
        whole = self._held + text
        shown = whole.rstrip()
        self._held = whole[len(shown) :]
        return shown
