"""Which passages answer a question: BM25 and vectors, fused by reciprocal rank, and cut off where nothing fits."""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from townhall.library.embedder import Vectors

K = 60  # Cormack, Clarke, Büttcher 2009, "Reciprocal Rank Fusion outperforms Condorcet and individual rank learning methods"
POOL = 50  # passages that each half proposes
# relevance below which a passage is none: of bench/library.py's questions 95 of 100 find something, of 50 without an answer 4
FIT = 0.37
_BLOCK = 1024  # vectors that are compared at a time: as float32 they stay in a core's cache
_WORD = re.compile(r"\w+(?:['’]\w+)?")
_STOP = frozenset(
    "a about after again all also am an and any are aren as at be because been before being below between both but by can cannot "
    "could d did do does doing don down during each few for from further get gets give given go goes had has have having he her here "
    "hers him his how i if in into is it its itself just know let ll m make makes many may me might more most much must my need needs "
    "no nor not of off on once one only or other our out over own please re s same say says shall she should so some something such t "
    "tell than that the their them then there these they thing things this those through to too under until up us use used uses using "
    "ve very want was way we well were what when where which while who whom whose why will with would you your".split()
)


def content_words(question: str) -> list[str]:
    """The words of a question that say what it is about, each once; all of them where none does."""
    words = list(dict.fromkeys(word.lower() for word in _WORD.findall(question)))
    return [word for word in words if not _STOP.issuperset(re.split("['’]", word))] or words


def rarity(frequency: int, passages: int) -> float:
    """BM25's weight of a word (Robertson, Spärck Jones), never below zero."""
    return math.log(1 + (passages - frequency + 0.5) / (frequency + 0.5))


def nearest(question: Vectors, matrix: npt.NDArray[np.floating[Any]], limit: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Rows of `matrix` (passages, D) by their cosine with `question` (D), best first, and all cosines (passages). Brute force."""
    cosines = np.empty(len(matrix), np.float32)
    block = np.empty((_BLOCK, matrix.shape[1]), np.float32)
    for start in range(0, len(matrix), _BLOCK):
        rows = matrix[start : start + _BLOCK]
        if rows.dtype != np.float32:
            np.copyto(block[: len(rows)], rows)
            rows = block[: len(rows)]
        np.dot(rows, question, out=cosines[start : start + _BLOCK])
    limit = min(limit, len(matrix))
    top = np.argpartition(-cosines, limit - 1)[:limit] if limit else np.empty(0, np.int64)
    return top[np.argsort(-cosines[top], kind="stable")], cosines


def fused(rankings: Iterable[Sequence[int]], k: int = K) -> dict[int, float]:
    """Sum of 1 / (k + rank) over the rankings, rank from 1; best first."""
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, id in enumerate(ranking, 1):
            scores[id] = scores.get(id, 0.0) + 1 / (k + rank)
    return dict(sorted(scores.items(), key=lambda entry: -entry[1]))
