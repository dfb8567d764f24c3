"""The user's libraries: named, found, opened, searched.

from townhall.library.libraries import Library
library = Library.open("kubla-khan")
for passage in library.search("Where does the river Alph run?", limit=4):
    print(passage.place, passage.heading, passage.text)
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from townhall.library import ranking
from townhall.library.embedder import StaticEmbedder, default_embedder
from townhall.library.errors import LibraryError
from townhall.library.library_index import LibraryIndex

Cosines = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]  # ids of passages, and theirs

SUFFIX = ".sqlite"
_LIKE = 1000  # passages: in a smaller library, a word that it lacks would count for nearly all
_SPARE = 4  # candidates for each passage that is wanted: some do not fit, some are there twice
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True)
class Passage:
    """A stretch of a document that fits a question. Lines count from 1: of the file, or of the page where there is one."""

    file: str
    first: int
    last: int
    page: int | None
    heading: str  # those above it, outermost first, with " > " between
    text: str
    score: float  # of the fusion: for the order within one search
    relevance: float  # 0 to 1: how well it fits by itself; comparable over questions and libraries

    @property
    def place(self) -> str:
        """File and lines, to be shown to people."""
        lines = f"line {self.first}" if self.first == self.last else f"lines {self.first}-{self.last}"
        return f"{self.file}, {f'page {self.page}, ' if self.page else ''}{lines}"


def default_folder() -> Path:
    """Where libraries lie."""
    from platformdirs import user_data_dir

    return Path(user_data_dir("townhall")) / "libraries"


def list_libraries(folder: Path | None = None) -> list[str]:
    """The names of all libraries."""
    return sorted(path.stem for path in (folder or default_folder()).glob(f"*{SUFFIX}"))


class Library:
    """A library that is open. `embedder` None leaves vectors out: words alone are searched for."""

    def __init__(self, name: str, index: LibraryIndex, embedder: StaticEmbedder | None):
        self.name, self.index, self.embedder = name, index, embedder

    def __enter__(self) -> "Library":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @classmethod
    def open(cls, name: str, folder: Path | None = None, create: bool = False) -> "Library":
        """The library of that name. LibraryError where there is none, unless it is to be created."""
        path = library_path(name, folder)
        if not path.exists():
            if not create:
                there = ", ".join(list_libraries(folder)) or "none yet"
                raise LibraryError(f"no library is called {name!r} (there is {there}); `townhall library add {name} PATH` makes it")
            path.parent.mkdir(parents=True, exist_ok=True)
        return cls(path.stem, LibraryIndex(path), default_embedder())

    def close(self) -> None:
        self.index.close()

    def search(self, question: str, limit: int = 5) -> list[Passage]:
        """The passages that fit the question, best first, at most `limit`; none where nothing fits."""
        terms = ranking.content_words(question)
        by_words = self.index.best(terms, ranking.POOL) if terms else []
        by_vectors, cosines = self._nearest(question)
        scores = ranking.fused([by_words, by_vectors])
        candidates = list(scores)[: _SPARE * limit]
        relevance = self._relevance(terms, candidates, cosines)
        fitting = [id for id in candidates if relevance[id] >= ranking.FIT]
        found = self.index.passages(fitting)
        passages: dict[str, Passage] = {}  # the same text in two files counts once
        for id in fitting:
            path, first, last, page, heading, text = found[id]
            passage = Passage(path, first, last, page, " > ".join(heading), text, scores[id], relevance[id])
            passages.setdefault(text, passage)
        return list(passages.values())[:limit]

    def _nearest(self, question: str) -> tuple[list[int], Cosines]:
        """Passages by their vectors' cosine with the question's, best first, and all cosines; nothing without an embedder."""
        if self.embedder is None:
            return [], (np.empty(0, np.int64), np.empty(0, np.float32))
        ids, matrix = self.index.vectors(self.embedder.id, self.embedder.dim)
        top, cosines = ranking.nearest(self.embedder.embed([question])[0], matrix, ranking.POOL)
        return [int(ids[row]) for row in top], (ids, cosines)

    def _relevance(self, terms: Sequence[str], candidates: Sequence[int], cosines: Cosines) -> dict[int, float]:
        """0 to 1: mean of the cosine and of the share of the question's words, by rarity, that a passage has; without vectors the share."""
        passages = max(self.index.count(), _LIKE)
        weights = {term: ranking.rarity(self.index.frequency(term), passages) for term in terms}
        covered = dict.fromkeys(candidates, 0.0)
        for term, weight in weights.items():
            for id in self.index.matching(term, candidates):
                covered[id] += weight / sum(weights.values())
        if self.embedder is None:
            return covered
        ids, values = cosines
        rows = np.flatnonzero(np.isin(ids, candidates))
        near = dict(zip(ids[rows].tolist(), values[rows].tolist()))
        return {id: (share + max(0.0, near.get(id, 0.0))) / 2 for id, share in covered.items()}


def library_path(name: str, folder: Path | None = None) -> Path:
    """The file of a library; LibraryError for what is no name."""
    if not _NAME.fullmatch(name):
        raise LibraryError(f"{name!r} is no name for a library; use letters, digits, - and _, 64 at most")
    return (folder or default_folder()) / f"{name.lower()}{SUFFIX}"


def remove_library(name: str, folder: Path | None = None) -> None:
    """Delete a library's index; its documents stay. LibraryError where there is none."""
    path = library_path(name, folder)
    if not path.exists():
        Library.open(name, folder)  # says which there are
    for suffix in ("-wal", "-shm", ""):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
