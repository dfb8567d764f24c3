"""An answer in the making: sampled ids in, text that may be shown out, and which ids that text is.

Stop strings that arrive in pieces are held back, a reply's ends are trimmed, and what the model thinks first is kept apart.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from townhall.language_model import HasTokenizer
from townhall.prompt import Prompt
from townhall.thoughts import ThoughtFilter

NO_TAGS: Mapping[int, str] = MappingProxyType({})


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


class Answer:
    """`ids` are all that were sampled, `shown` is the text so far without anything that could still be a stop string.

    `stop` takes the place of the prompt's own stop strings; without `trim` white space at the ends counts as said, and so do thoughts
    unless `separate` says otherwise. The answer begins with `opening` as if that had been sampled, but not before there is more of it: what
    was interrupted before that was never begun. After `think_tokens` ids of thoughts, `interject` ends them. `tags` are control tokens that
    count as the text that they are spelled as.
    """

    def __init__(
        self,
        llama: HasTokenizer,
        prompt: Prompt,
        stop: Sequence[str] | None = None,
        trim: bool = True,
        opening: Sequence[int] = (),
        separate: bool | None = None,
        think_tokens: int | None = None,
        tags: Mapping[int, str] = NO_TAGS,
    ):
        self.ids: list[int] = []
        self.shown = ""
        self.reasoning = ""
        self._thoughts = ThoughtFilter(prompt.opens_thoughts) if (trim if separate is None else separate) else None
        self._reasoning_trim, self._think_tokens, self._said_from, self._told = EdgeTrim(), think_tokens, 0, 0
        self._prompt = prompt
        self._tags = tags
        self._decoder = llama.tokenizer.stream(continued=True)
        self._filter, self._trim = StopFilter(prompt.stop if stop is None else stop), EdgeTrim() if trim else None
        self._opening: Sequence[int] = opening
        self._text = ""
        self._ends: list[int] = []  # length of the text after each id

    @property
    def stopped(self) -> bool:
        return self._filter.stopped is not None

    @property
    def thinking(self) -> bool:
        """Is what comes now no word of the answer yet?"""
        return self._thoughts is not None and self._thoughts.thinking

    def push(self, token: int) -> str:
        """Take a sampled id and return what may be shown now."""
        return self._begin() + self._take(token)

    def interject(self) -> Sequence[int]:
        """Ids that must come next: the end of thoughts that took too long."""
        if not self.thinking or self._think_tokens is None or len(self.ids) < self._think_tokens:
            return ()
        self._think_tokens = None
        return self._prompt.thoughts_end

    def new_reasoning(self) -> str:
        """The thoughts since this was called last."""
        told, self._told = self._told, len(self.reasoning)
        return self.reasoning[told:]

    def _begin(self) -> str:
        opening, self._opening = self._opening, ()
        return "".join([self._take(token) for token in opening])

    def _take(self, token: int) -> str:
        text = self._decoder.push(token)
        if self._thoughts and not self._thoughts.over:
            text = text or self._prompt.think_tags.get(token, "")
        text = text or self._tags.get(token, "")
        self.ids.append(token)
        self._text += text
        self._ends.append(len(self._text))
        return self._show(self._filter.push(self._think(text)))

    def _think(self, text: str, end: bool = False) -> str:
        """What of the text is said."""
        if self._thoughts is None:
            return text
        undecided = not self._thoughts.over
        thoughts, said = self._thoughts.flush() if end else self._thoughts.push(text)
        self.reasoning += self._reasoning_trim.push(thoughts)
        if undecided and self._thoughts.over:
            self._said_from = len(self._text) - len(said)
        return said

    def flush(self) -> str:
        """The end: what was held back is shown; an unfinished character is not."""
        return self._begin() + self._show(self._filter.push(self._think("", end=True)) + self._filter.flush())

    @property
    def first(self) -> int:
        """How many ids are thoughts, and what stands between them and the answer."""
        start = self._said_from + self._space() if self._said_from else 0
        return sum(end <= start for end in self._ends)

    @property
    def whole(self) -> int:
        """How many of the sampled ids have been shown whole."""
        length = self._length()
        return sum(end <= length for end in self._ends)

    def kept_ids(self, finish: str | None) -> list[int]:
        """The ids that stand for the answer in the history, after it ended so: thoughts are not among them."""
        ids = list(self.ids) if finish == "stop" and not self.stopped else self.shown_ids()
        if not self._said_from:
            return ids
        first = self.first
        if first and self._ends[first - 1] == self._said_from + self._space():
            return ids[first:]
        return self._prompt.words(self._text[self._said_from + self._space() : self._length()])  # an id holds both

    def shown_ids(self) -> list[int]:
        """The sampled ids as far as their text was shown; where a token was shown in part, that part is encoded anew."""
        length, whole = self._length(), self.whole
        while whole and self._ends[whole - 1] == (self._ends[whole - 2] if whole > 1 else 0):
            whole -= 1  # nothing of this id was shown
        start = self._ends[whole - 1] if whole else 0
        return self.ids[:whole] + self._prompt.words(self._text[start:length])

    def _length(self) -> int:
        """Of the sampled text, up to where it was shown."""
        return self._said_from + self._space() + len(self.shown) if self.shown else 0

    def _space(self) -> int:
        """White space before the first word."""
        said = self._text[self._said_from :]
        return len(said) - len(said.lstrip()) if self._trim else 0

    def _show(self, text: str) -> str:
        shown = self._trim.push(text) if self._trim else text
        self.shown += shown
        return shown
