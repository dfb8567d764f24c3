"""The texts that lorebooks are looked up in: the newest messages, and what entries that fired say."""

from collections.abc import Iterable, Sequence
from functools import cached_property

from townhall.characters.key_patterns import Clock, Key, PlainKey

MAX_MESSAGES, MAX_TEXT = 1_000, 1_000_000  # of one scan, the newest
FEW = 32  # places that are looked at one by one
BEGIN = "\x01"  # before each message, as in SillyTavern: a regular expression can find the beginning of one


class ScanText:
    """A text, in which thousands of keys are looked up: where each run of three characters begins is worked out once."""

    def __init__(self, text: str):
        self.text = text

    @cached_property
    def _folded(self) -> "ScanText":
        return ScanText(self.text.casefold())

    @cached_property
    def _runs(self) -> dict[str, list[int]]:
        runs: dict[str, list[int]] = {}
        for at, run in enumerate(map("".join, zip(self.text, self.text[1:], self.text[2:]))):
            runs.setdefault(run, []).append(at)
        return runs

    def first(self, keys: Iterable[Key], clock: Clock) -> Key | None:
        """The first of the keys that is there."""
        for key in keys:
            if isinstance(key, PlainKey):
                if (self._folded if key.folded else self)._holds(key):
                    return key
            elif key.found_in(self.text, clock):
                return key
        return None

    def has(self, key: Key, clock: Clock) -> bool:
        return self.first((key,), clock) is not None

    def _holds(self, key: PlainKey) -> bool:
        if not key.head:
            return key.found_in(self.text)
        if (heads := self._runs.get(key.head)) is None or (tails := self._runs.get(key.tail)) is None:
            return False
        if min(len(heads), len(tails)) > FEW:
            return key.found_in(self.text)
        back = len(key.text) - 3
        starts = heads if len(heads) <= len(tails) else [at - back for at in tails if at >= back]
        at = next((at for at in starts if self.text.startswith(key.text, at)), -1)
        return at >= 0 and (not key.whole or key.found_in(self.text, at))


class ScanTexts:
    """By depth, with or without what entries say, which grows from pass to pass."""

    def __init__(self, messages: Sequence[str]):
        self._messages, self._said = messages[-MAX_MESSAGES:], list[str]()
        self._made: dict[tuple[int, bool], ScanText] = {}

    def say(self, texts: Iterable[str]) -> None:
        """Add what the entries of a pass say, which stands as one message, as in SillyTavern."""
        if text := "\n".join(texts):
            self._said.append(text)
        self._made = {key: text for key, text in self._made.items() if not key[1]}

    def get(self, depth: int, recursive: bool) -> ScanText:
        """The newest `depth` messages, newest first; nothing at depth 0, as in SillyTavern."""
        if (made := self._made.get((depth, recursive))) is None:
            parts = [*reversed(self._messages[-depth:])] if depth else []
            parts += self._said if recursive and depth else []
            text = BEGIN + f"\n{BEGIN}".join(parts) if parts else ""
            made = self._made[depth, recursive] = ScanText(text[:MAX_TEXT])
        return made
