"""What is amiss with data before it is trained on: duplicates, near-duplicates, what a test knows of the training, lengths; and a split."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from townhall.data.training_chats import TrainingChat, normal

SHINGLE = 5  # words
NEAR = 0.8  # of the shingles of the shorter one
COMMON = 50  # texts that may share a shingle; what more share says nothing about any two


@dataclass(frozen=True)
class Alike:
    """Two conversations that say the same, or nearly."""

    first: str  # sources
    second: str
    share: float  # of the shorter one's runs of five words; 1: word for word

    @property
    def exact(self) -> bool:
        return self.share == 1


def alike(chats: Sequence[TrainingChat], others: Sequence[TrainingChat] | None = None) -> list[Alike]:
    """Pairs within `chats`, or between them and `others`: equal, or with NEAR of the shorter one's shingles in the other."""
    both = [*chats, *(others or ())]
    texts = [normal(chat.words) for chat in both]
    shingles = [_shingles(text) for text in texts]
    holders: defaultdict[str, list[int]] = defaultdict(list)
    for at, of_one in enumerate(shingles):
        for shingle in of_one:
            holders[shingle].append(at)
    shared: Counter[tuple[int, int]] = Counter()
    for group in holders.values():
        if len(group) <= COMMON:
            shared.update((a, b) for i, a in enumerate(group) for b in group[i + 1 :])
    equal: defaultdict[str, list[int]] = defaultdict(list)
    for at, text in enumerate(texts):
        equal[text].append(at)
    found = {(group[0], other): 1.0 for group in equal.values() for other in group[1:]}
    if others is not None:  # an equal one on the other side counts, whichever of its own side came first
        found = {(a, b): 1.0 for group in equal.values() for a in group for b in group if a < len(chats) <= b}
    for (a, b), count in shared.items():
        share = count / max(1, min(len(shingles[a]), len(shingles[b])))
        if share >= NEAR and texts[a] != texts[b] and (others is None or a < len(chats) <= b):
            found[a, b] = min(share, 0.999)
    return [Alike(both[a].source, both[b].source, share) for (a, b), share in sorted(found.items())]


def without_duplicates(chats: Sequence[TrainingChat]) -> list[TrainingChat]:
    """The first of those that say the same, word for word."""
    seen: set[str] = set()
    return [chat for chat in chats if (words := normal(chat.words)) not in seen and not seen.add(words)]  # type: ignore[func-returns-value]


def split(chats: Sequence[TrainingChat], share: float, seed: int = 0) -> tuple[list[TrainingChat], list[TrainingChat]]:
    """(training, test), by source, so that no conversation is on both sides; the sources and the seed decide."""
    sources = sorted({chat.source for chat in chats}, key=lambda source: hashlib.sha256(f"{seed} {source}".encode()).digest())
    wanted, taken, test = round(share * len(chats)), 0, set()
    sizes = Counter(chat.source for chat in chats)
    for source in sources:
        if taken >= wanted:
            break
        test.add(source)
        taken += sizes[source]
    return [chat for chat in chats if chat.source not in test], [chat for chat in chats if chat.source in test]


@dataclass(frozen=True)
class Lengths:
    """Tokens of the conversations as they will be trained on."""

    total: int
    learnt: int
    longest: int
    median: int
    ninetieth: int  # percentile

    @classmethod
    def of(cls, tokens: Sequence[int], learnt: Sequence[int]) -> "Lengths":
        median, ninetieth = (int(x) for x in np.percentile(tokens, [50, 90])) if tokens else (0, 0)
        return cls(sum(tokens), sum(learnt), max(tokens, default=0), median, ninetieth)


def _shingles(text: str) -> set[str]:
    words = text.split()
    return {" ".join(words[at : at + SHINGLE]) for at in range(max(1, len(words) - SHINGLE + 1))} if words else set()
