"""What a model said in earlier replies is held back in the next one: an id that would go on with a repetition loses logits.

Between DRY (`app/models/llama/dry.py`), which looks at all of a prompt, and transformers' `no_repeat_ngram_size`, which forbids. Only
replies are looked at, so that the words of a question can be taken up. Only an id that begins a word is held back, so that a repetition
ends between two words and no name is spelled otherwise; digits and signs never are, nor anything within a block of code.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

START = -1  # stands in front of a reply: how one begins is a part of what is repeated
LEAD = 2  # so many of them: an equal beginning weighs as much as so many ids more
MOST_IDS = 8192  # of earlier replies, the newest
MOST = 8  # times that the penalty may count for one id
_SPACE, _OPENERS = b" \t\r\n", b" \t\r\n\"'([*_-"
_FENCE = b"```"


@dataclass(frozen=True)
class EarlierReplies:
    """`start` is where the answer begins among the ids that it is drawn after; `spelling` gives what an id adds to a text."""

    start: int
    replies: tuple[tuple[int, ...], ...]  # the oldest first
    spelling: Callable[[int], bytes]


class ReplyRepetition:
    """For one reply, whose ids only grow: what each id loses that would go on as an earlier reply, or this one, went on.

    After at least `size` equal ids the next one loses `penalty` for each id from the `size`-th on, at most MOST times.
    """

    def __init__(self, earlier: EarlierReplies, penalty: float, size: int):
        self._earlier, self._penalty, self._size = earlier, penalty, size
        self._texts = [self._led(reply) for reply in _newest(earlier.replies)]
        self._places: dict[tuple[int, ...], list[tuple[int, int]]] | None = None  # of sequences of `size` ids: text, and where they end
        self._own: list[int] = [START] * LEAD
        self._fenced = False

    def penalties(self, ids: Sequence[int]) -> dict[int, float]:
        """After `ids`, the prompt's and the answer's so far."""
        said = len(self._own) - LEAD
        for n in ids[self._earlier.start + said :]:
            self._follow(n)
        if self._fenced or len(self._own) < self._size:
            return {}
        if self._places is None:
            self._places = {}
            for text, reply in enumerate(self._texts):
                for end in range(self._size, len(reply)):
                    self._places.setdefault(tuple(reply[end - self._size : end]), []).append((text, end))
            self._texts.append(self._own)
            for end in range(self._size, len(self._own)):
                self._note(end)
        lengths: dict[int, int] = {}
        for text, end in self._places.get(tuple(self._own[-self._size :]), ()):
            reply = self._texts[text]
            if end < len(reply) and self._begins_word(reply[end]):
                lengths[reply[end]] = max(lengths.get(reply[end], 0), self._same(reply, end))
        return {n: self._penalty * min(MOST, length - self._size + 1) for n, length in lengths.items()}

    def _led(self, reply: Sequence[int]) -> list[int]:
        return [*[START] * LEAD, *reply]

    def _follow(self, n: int) -> None:
        self._own.append(n)
        if self._earlier.spelling(n).count(_FENCE) % 2:
            self._fenced = not self._fenced
        if self._places is not None:
            self._note(len(self._own) - 1)

    def _note(self, end: int) -> None:
        """The sequence before the own id at `end`, which is known."""
        if end >= self._size and self._places is not None:
            self._places.setdefault(tuple(self._own[end - self._size : end]), []).append((len(self._texts) - 1, end))

    def _same(self, reply: Sequence[int], end: int) -> int:
        """How many ids up to there are those at the end of the own reply."""
        length, most = self._size, min(end, len(self._own), self._size + MOST)
        while length < most and reply[end - 1 - length] == self._own[-1 - length]:
            length += 1
        return length

    def _begins_word(self, n: int) -> bool:
        """Would this id begin a word of letters here?"""
        spelled = self._earlier.spelling(n)
        if not spelled:
            return False
        if 0xE3 <= spelled[0] <= 0xE9:  # Chinese and Japanese, which put no space between words
            return True
        before = self._own[-1]
        apart = spelled[0] in _SPACE or before == START or self._earlier.spelling(before)[-1:] in {bytes([c]) for c in _OPENERS}
        rest = spelled.lstrip(_OPENERS)
        return apart and bool(rest) and (rest[:1].isalpha() or rest[0] >= 0x80)


def _newest(replies: Sequence[tuple[int, ...]]) -> Iterator[tuple[int, ...]]:
    """As many of the last replies as have MOST_IDS ids at most."""
    room = MOST_IDS
    for reply in reversed(replies):
        if (room := room - len(reply)) < 0:
            return
        yield reply
