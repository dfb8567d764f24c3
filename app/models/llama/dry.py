"""DRY, "don't repeat yourself" (text-generation-webui, pull request 5677): an id that would go on with a repetition loses the more, the
longer the repetition is already.

For each earlier place of the text one number is kept: how many ids up to there are the same as those that the text now ends with. A new
id t lengthens it by one where t stands next, and makes it 0 elsewhere, so that an id costs one pass over an array. Only where a text is
met for the first time are they computed by the Z algorithm (Gusfield 1997, section 1.4) over the ids in reverse, in one go as well.
"""

import math
from collections.abc import Sequence

import numpy as np

from app.models.llama.sampling_params import SamplingParams
from app.models.llama.sequence_breakers import SequenceBreakers

LARGEST = 88.7  # the natural logarithm of a penalty, at most: that of float32's largest number
CATCH_UP = 64  # ids that are taken one by one; of more the whole is looked at anew


class RepetitionPenalty:
    """DRY over one text that only grows."""

    def __init__(self, sampling: SamplingParams, breakers: SequenceBreakers):
        self._sampling, self._breakers = sampling, breakers
        self._text: Sequence[int] | None = None  # the list that grows
        self._ids = np.empty(0, np.int64)
        self._same = np.empty(0, np.int64)  # [i]: so many ids up to the i-th are those at the end; of the last id itself unknown
        self._n = 0  # of the ids, those that are known
        self._since = 0  # ids since a breaker

    def penalties(self, text: Sequence[int]) -> dict[int, float]:
        """What each id loses that would repeat more than is allowed, after `text`, oldest first."""
        s = self._sampling
        self._follow(text)
        first = 0 if s.dry_penalty_last_n < 0 else max(0, self._n - s.dry_penalty_last_n)
        count = self._n - 1 - first  # places that something follows
        if count < 1:
            return {}
        longest = np.minimum(self._same[first : self._n - 1], np.arange(1, count + 1))  # a repetition begins within the range
        np.minimum(longest, self._since, out=longest)
        ends = np.flatnonzero(longest >= s.dry_allowed_length)
        if not ends.size:
            return {}
        ends = ends[np.argsort(longest[ends], kind="stable")]  # of one id's repetitions the longest comes last, and counts
        lengths = dict(zip(self._ids[first + 1 + ends].tolist(), longest[ends].tolist(), strict=True))
        most, single = int(LARGEST / math.log(max(s.dry_base, 1.000001))), self._breakers.single
        return {
            n: s.dry_multiplier * s.dry_base ** min(length - s.dry_allowed_length, most) for n, length in lengths.items() if n not in single
        }

    def _follow(self, text: Sequence[int]) -> None:
        if text is self._text and 0 <= len(text) - self._n <= CATCH_UP:
            for n in text[self._n :]:
                self._append(n)
            return
        self._text, self._n = text, len(text)
        self._ids, self._same = np.zeros(self._n + 256, np.int64), np.zeros(self._n + 256, np.int64)
        self._ids[: self._n] = text
        if self._n:
            # place i of the text, 0 being the last, is place n - 1 - i of the array
            self._same[: self._n] = z_lengths(text[::-1])[::-1]
        self._since = next((back for back in range(self._n) if self._ends_breaker(self._n - back)), self._n)

    def _append(self, n: int) -> None:
        if self._n == self._ids.size:
            self._ids, self._same = np.resize(self._ids, 2 * self._n), np.resize(self._same, 2 * self._n)
        at = self._n
        again = self._ids[:at] == n
        if at:
            self._same[1:at] = (self._same[: at - 1] + 1) * again[1:]
            self._same[0] = again[0]
        self._ids[at], self._n = n, at + 1
        self._since = 0 if self._ends_breaker(self._n) else self._since + 1

    def _ends_breaker(self, end: int) -> bool:
        """Do the ids before that place end with a breaker?"""
        lengths = self._breakers.lengths.get(int(self._ids[end - 1]), ())
        return any(n <= end and tuple(self._ids[end - n : end].tolist()) in self._breakers.sequences for n in lengths)


def z_lengths(ids: Sequence[int]) -> list[int]:
    """[i]: how many ids from i on are those at the beginning; [0] is the length of all. Each id is compared a bounded number of times."""
    n, left, right = len(ids), 0, 0  # ids[left:right] are known to be those at the beginning
    lengths = [0] * n
    if n:
        lengths[0] = n
    for i in range(1, n):
        length = min(lengths[i - left], right - i) if i < right else 0
        while i + length < n and ids[length] == ids[i + length]:
            length += 1
        lengths[i] = length
        if i + length > right:
            left, right = i, i + length
    return lengths
