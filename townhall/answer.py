"""An answer in the making: sampled ids in, text that may be shown out, and which ids that text is."""

from townhall.facade import LanguageModel
from townhall.prompt import Prompt
from townhall.stream import EdgeTrim, StopFilter


class Answer:
    """`ids` are all that were sampled, `shown` is the text so far without anything that could still be a stop string."""

    def __init__(self, llama: LanguageModel, prompt: Prompt):
        self.ids: list[int] = []
        self.shown = ""
        self._prompt = prompt
        self._decoder = llama.tokenizer.stream(continued=True)
        self._filter, self._trim = StopFilter(prompt.stop), EdgeTrim()
        self._text = ""
        self._ends: list[int] = []  # length of the text after each id

    @property
    def stopped(self) -> bool:
        return self._filter.stopped is not None

    def push(self, token: int) -> str:
        """Take a sampled id and return what may be shown now."""
        text = self._decoder.push(token)
        self.ids.append(token)
        self._text += text
        self._ends.append(len(self._text))
        return self._show(self._filter.push(text))

    def flush(self) -> str:
        """The end: what was held back is shown; an unfinished character is not."""
        return self._show(self._filter.flush())

    def shown_ids(self) -> list[int]:
        """The sampled ids as far as their text was shown; where a token was shown in part, that part is encoded anew."""
        length = len(self._text) - len(self._text.lstrip()) + len(self.shown) if self.shown else 0
        whole = sum(end <= length for end in self._ends)
        while whole and self._ends[whole - 1] == (self._ends[whole - 2] if whole > 1 else 0):
            whole -= 1  # nothing of this id was shown
        start = self._ends[whole - 1] if whole else 0
        return self.ids[:whole] + self._prompt.words(self._text[start:length])

    def _show(self, text: str) -> str:
        shown = self._trim.push(text)
        self.shown += shown
        return shown
