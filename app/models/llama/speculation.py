"""Guesses of the next tokens, which one pass verifies: prompt lookup (github.com/apoorvumang/prompt-lookup-decoding), or a smaller model.

Each position is drawn as ever, from the logits that a step of its own would have given, with the same random numbers, penalties and
grammar; guesses count as long as they are what was drawn. So a text is the same with and without, at any temperature and seed, and only its
speed differs (speculative sampling, arXiv 2302.01318, with the draw itself as the rule).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

MOST_GUESSES = 7  # tokens of a guess: a pass of eight rows
LONGEST, SHORTEST = 4, 2  # tokens that must stand again for lookup to guess what followed them
SOME_STEPS = 4  # tokens that a draft model's cache is behind at most before they are read as a prompt is
AT_FIRST = {0: 0.6, 2: 0.2, 3: 0.4, 4: 0.6}  # chance that a guess is right, by the length of what stood again; 0: a model's
LEARNING, FORGETTING = 0.08, 0.002  # how far an outcome moves that chance; and how far each time that no guess is made moves it back
WORTH = 1.03  # gain from which on a guess is made


class Drafter(Protocol):
    """Guesses what comes next."""

    def guess(self, history: Sequence[int], most: int) -> tuple[list[int], int]:
        """Up to `most` ids, and the length of what stood again (a key of AT_FIRST)."""


class PromptLookup:
    """What followed the newest tokens when they stood in the window before."""

    def __init__(self) -> None:
        self._after: dict[tuple[int, ...], int] = {}  # where what followed them last begins
        self._known = 0  # tokens of the history whose stretches are in it

    def guess(self, history: Sequence[int], most: int) -> tuple[list[int], int]:
        # the newest stretches are not entered before something follows them
        for end in range(max(self._known, SHORTEST), len(history)):
            for n in range(SHORTEST, min(LONGEST, end) + 1):
                self._after[tuple(history[end - n : end])] = end
        self._known = max(self._known, len(history))
        for n in range(min(LONGEST, len(history)), SHORTEST - 1, -1):
            if (at := self._after.get(tuple(history[-n:]))) is not None:
                return list(history[at : at + most]), n
        return [], 0


class DraftModel:
    """The likeliest ids of a smaller model of the same vocabulary."""

    def __init__(self, llama: Any):
        self._llama, self._cache = llama, llama.new_cache()

    def guess(self, history: Sequence[int], most: int) -> tuple[list[int], int]:
        llama, cache = self._llama, self._cache
        most = min(most, cache.capacity - len(history))
        if most <= 0:
            return [], 0
        cache.truncate(cache.reachable(min(cache.common_prefix(list(history)), len(history) - 1)))
        if len(history) - len(cache.tokens) > SOME_STEPS:
            llama.prefill(list(history[:-1]), cache)
        for token in history[len(cache.tokens) : -1]:
            llama.engine.advance(token, cache)
        guessed = [history[-1]]
        for _ in range(most):
            guessed.append(int(llama.engine.step(guessed[-1], cache).argmax()))
        return guessed[1:], 0


@dataclass
class SpeculationCount:
    """What guesses came to."""

    guessed: int = 0  # tokens that a pass computed on suspicion
    accepted: int = 0  # of them
    passes: int = 0  # that had guesses

    def __str__(self) -> str:
        share = self.accepted / self.guessed if self.guessed else 0.0
        per_pass = 1 + self.accepted / self.passes if self.passes else 1.0
        return f"{self.accepted} of {self.guessed} guessed tokens accepted ({share:.0%}), {per_pass:.1f} tokens a pass with guesses"


class Speculation:
    """The guesses of one generation: as long as they pay, by how often such guesses were right and what passes cost here."""

    def __init__(self, drafter: Drafter, cost: Callable[[int], float], count: SpeculationCount):
        """`cost`: of a pass over so many rows, in steps of one token."""
        self._drafter, self._cost, self._count = drafter, cost, count
        self._chances = dict(AT_FIRST)
        self._kind = 0
        self._guess: tuple[int, list[int]] = (-1, [])  # made for a history of so many tokens

    def guess(self, history: Sequence[int], most: int) -> list[int]:
        """What may follow `history`, at most so many ids; nothing where that would not pay. The same for the same history."""
        if self._guess[0] != len(history):
            self._guess = (len(history), self._new_guess(history, min(most, MOST_GUESSES)) if most > 0 else [])
        return self._guess[1]

    def _new_guess(self, history: Sequence[int], most: int) -> list[int]:
        ids, kind = self._drafter.guess(history, most)
        if not ids:
            return []
        chance = self._chances[kind]
        expected, best, length = 1.0, WORTH, 0
        for k in range(1, len(ids) + 1):
            expected += chance**k
            if (gain := expected / self._cost(k + 1)) > best:
                best, length = gain, k
        if not length:
            self._chances[kind] += FORGETTING * (AT_FIRST[kind] - chance)
        self._kind = kind
        return ids[:length]

    def began(self, guesses: int) -> None:
        """A pass had so many of them."""
        self._count.passes += 1
        self._count.guessed += guesses

    def outcome(self, right: bool) -> None:
        """The next guess was, or was not, what was drawn."""
        self._count.accepted += right
        self._chances[self._kind] += LEARNING * (right - self._chances[self._kind])
