"""One library in one SQLite file: documents, passages, their words (FTS5) and their vectors (float16).

A document is replaced in a transaction together with all that was made of it, so a reader or a crash meets the old one or the new one.
"""

import json
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
import numpy.typing as npt

from townhall.library.chunker import Chunk
from townhall.library.embedder import Vectors
from townhall.library.errors import LibraryError

VERSION = 1
_WEIGHTS = (1.5, 1.0)  # of a word in a heading, and in the text
_FEW_BYTES = 32 << 20  # of vectors in float32: they are compared three times as fast as those in float16
_TABLES = f"""
CREATE TABLE root (path TEXT PRIMARY KEY);
CREATE TABLE document (
    id INTEGER PRIMARY KEY, path TEXT UNIQUE, sha256 TEXT, size INTEGER, changed INTEGER, fault TEXT, embedder TEXT, vectors BLOB
);
CREATE TABLE chunk (id INTEGER PRIMARY KEY, document INTEGER, first INTEGER, last INTEGER, page INTEGER, heading TEXT);
CREATE INDEX chunk_of ON chunk (document);
CREATE VIRTUAL TABLE word USING fts5 (heading, text, tokenize = 'porter unicode61 remove_diacritics 2');
INSERT INTO word (word, rank) VALUES ('rank', 'bm25{_WEIGHTS}');
"""


@dataclass(frozen=True)
class DocumentEntry:
    """A document that was read; `fault` says why it has no passages. `changed` is 0 where its time is not to be relied on."""

    path: str
    sha256: str
    size: int
    changed: int
    fault: str | None


class LibraryIndex:
    """The file at `path`; LibraryError where it is none of ours. Threads may share it."""

    def __init__(self, path: Path):
        self.path = path
        self._lock = RLock()
        try:
            self._db = sqlite3.connect(path, timeout=30, check_same_thread=False, isolation_level=None)
            self._db.execute("PRAGMA journal_mode = WAL")  # a chat reads on while a watch writes
            self._db.execute("PRAGMA synchronous = NORMAL")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if not version and not self._db.execute("SELECT 1 FROM sqlite_master").fetchone():
                self._db.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {VERSION}; COMMIT;")
                version = VERSION
        except sqlite3.Error as error:
            raise LibraryError(f"library {path} cannot be opened ({error}); `townhall library remove {path.stem}` takes it away") from error
        if version != VERSION:
            self._db.close()
            raise LibraryError(
                f"library {path} was made by another version; `townhall library remove {path.stem}` and add its documents again"
            )
        self._vectors: tuple[tuple[int, int], str, npt.NDArray[np.int64], npt.NDArray[np.floating[Any]]] | None = None

    def close(self) -> None:
        with self._lock:
            self._db.close()

    # --- writing ---

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One step of a transaction: all of it or nothing, also where Ctrl-C falls into it."""
        with self._lock:
            if not self._db.in_transaction:
                self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("SAVEPOINT step")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK TO step")
                raise
            finally:
                self._db.execute("RELEASE step")

    def add_root(self, path: Path) -> None:
        with self._writing():
            self._db.execute("INSERT OR IGNORE INTO root VALUES (?)", (str(path),))

    def remove_root(self, path: Path) -> None:
        with self._writing():
            self._db.execute("DELETE FROM root WHERE path = ?", (str(path),))

    def put(self, entry: DocumentEntry, chunks: Sequence[Chunk], embedder: str, vectors: Vectors | None) -> None:
        """Replace the document of that path; seen by others once `commit` is called."""
        with self._writing():
            self._forget(entry.path)
            packed = None if vectors is None else vectors.astype(np.float16).tobytes()
            row = (entry.path, entry.sha256, entry.size, entry.changed, entry.fault, embedder if packed else None, packed)
            marks = "(path, sha256, size, changed, fault, embedder, vectors) VALUES (?, ?, ?, ?, ?, ?, ?)"
            document = self._db.execute(f"INSERT INTO document {marks}", row).lastrowid
            first = self._db.execute("SELECT coalesce(max(id), 0) + 1 FROM chunk").fetchone()[0]
            headings = [json.dumps(chunk.heading, ensure_ascii=False) for chunk in chunks]
            rows = [(id, document, c.first, c.last, c.page, heading) for id, (c, heading) in enumerate(zip(chunks, headings), first)]
            self._db.executemany("INSERT INTO chunk (id, document, first, last, page, heading) VALUES (?, ?, ?, ?, ?, ?)", rows)
            words = [(id, context(entry.path, chunk.heading), chunk.text) for id, chunk in enumerate(chunks, first)]
            self._db.executemany("INSERT INTO word (rowid, heading, text) VALUES (?, ?, ?)", words)

    def touch(self, path: str, changed: int) -> None:
        """The same bytes as before, saved again."""
        with self._writing():
            self._db.execute("UPDATE document SET changed = ? WHERE path = ?", (changed, path))

    def forget(self, path: str) -> None:
        with self._writing():
            self._forget(path)

    def _forget(self, path: str) -> None:
        for (document,) in self._db.execute("SELECT id FROM document WHERE path = ?", (path,)).fetchall():
            self._db.execute("DELETE FROM word WHERE rowid IN (SELECT id FROM chunk WHERE document = ?)", (document,))
            self._db.execute("DELETE FROM chunk WHERE document = ?", (document,))
            self._db.execute("DELETE FROM document WHERE id = ?", (document,))

    def commit(self) -> None:
        with self._lock:
            if self._db.in_transaction:
                self._db.execute("COMMIT")

    def set_vectors(self, path: str, embedder: str, vectors: Vectors) -> None:
        with self._writing():
            packed = vectors.astype(np.float16).tobytes()
            self._db.execute("UPDATE document SET embedder = ?, vectors = ? WHERE path = ?", (embedder, packed, path))

    # --- reading ---

    def roots(self) -> list[Path]:
        return [Path(path) for (path,) in self._rows("SELECT path FROM root ORDER BY path")]

    def documents(self) -> list[DocumentEntry]:
        return [DocumentEntry(*row) for row in self._rows("SELECT path, sha256, size, changed, fault FROM document ORDER BY path")]

    def sizes(self) -> tuple[int, int, int, int]:
        """Documents that were read, passages, bytes of those documents, and documents that could not be read."""
        read = self._rows("SELECT count(*), coalesce(sum(size), 0) FROM document WHERE fault IS NULL")[0]
        faults = self._rows("SELECT count(*) FROM document WHERE fault IS NOT NULL")[0][0]
        return read[0], self._rows("SELECT count(*) FROM chunk")[0][0], read[1], faults

    def without_vectors(self, embedder: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
        """(path, [(heading, text)]) of documents that another embedder, or none, has seen."""
        for id, path in self._rows("SELECT id, path FROM document WHERE fault IS NULL AND embedder IS NOT ?", embedder):
            texts = "SELECT heading, text FROM word WHERE rowid IN (SELECT id FROM chunk WHERE document = ?) ORDER BY rowid"
            yield path, self._rows(texts, id)

    def count(self) -> int:
        """Passages."""
        return int(self._rows("SELECT count(*) FROM chunk")[0][0])

    def matching(self, term: str, among: Sequence[int] | None = None) -> list[int]:
        """Passages that hold a word, in any of its forms; of those in `among` where it is given."""
        where = "" if among is None else f" AND rowid IN ({', '.join(map(str, map(int, among)))})"
        return [row[0] for row in self._rows(f"SELECT rowid FROM word WHERE word MATCH ?{where}", quoted([term]))]

    def frequency(self, term: str) -> int:
        """In how many passages it stands."""
        return int(self._rows("SELECT count(*) FROM word WHERE word MATCH ?", quoted([term]))[0][0])

    def best(self, terms: Sequence[str], limit: int) -> list[int]:
        """The passages that hold any of the words, by BM25, best first."""
        return [row[0] for row in self._rows("SELECT rowid FROM word WHERE word MATCH ? ORDER BY rank LIMIT ?", quoted(terms), limit)]

    def vectors(self, embedder: str, dim: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.floating[Any]]]:
        """Ids of all passages that have a vector of this embedder, and the vectors (passages, dim), in float32 where those are few.

        They are kept until the library changes.
        """
        with self._lock:
            stamp = (self._rows("PRAGMA data_version")[0][0], self._db.total_changes)
            if self._vectors is None or self._vectors[:2] != (stamp, embedder):
                rows = self._rows("SELECT id, vectors FROM document WHERE embedder = ? ORDER BY id", embedder)
                chunks = "SELECT chunk.id FROM chunk JOIN document ON document.id = document WHERE embedder = ? ORDER BY document, chunk.id"
                ids = np.array([row[0] for row in self._rows(chunks, embedder)], np.int64)
                matrix = np.frombuffer(b"".join(row[1] for row in rows), np.float16).reshape(-1, dim)
                few = matrix.size * 4 <= _FEW_BYTES
                self._vectors = stamp, embedder, ids, matrix.astype(np.float32) if few else matrix
            return self._vectors[2], self._vectors[3]

    def passages(self, ids: Sequence[int]) -> dict[int, tuple[str, int, int, int | None, tuple[str, ...], str]]:
        """Path, first and last line, page, headings and text of each."""
        rows = self._rows(
            "SELECT chunk.id, path, first, last, page, chunk.heading, text FROM chunk JOIN document ON document.id = document "
            f"JOIN word ON word.rowid = chunk.id WHERE chunk.id IN ({', '.join(map(str, map(int, ids)))})"
        )
        return {id: (path, first, last, page, tuple(json.loads(heading)), text) for id, path, first, last, page, heading, text in rows}

    def _rows(self, query: str, *values: Any) -> list[Any]:
        with self._lock:
            try:
                return self._db.execute(query, values).fetchall()
            except sqlite3.DatabaseError as error:
                name = self.path.stem
                raise LibraryError(
                    f"library {self.path} is damaged ({error}); `townhall library remove {name}` and add its documents again"
                ) from error


def context(path: str, heading: Sequence[str]) -> str:
    """What a passage stands in: the words of its file's name, and its headings. It is searched along with the text."""
    return " > ".join([_file_words(path), *heading])


@lru_cache(16)
def _file_words(path: str) -> str:
    file = Path(path)
    name = file.parent.name if file.stem in ("index", "__init__", "README", "readme") else file.stem
    return " ".join(re.findall(r"[^\W_]+", name))


def quoted(terms: Sequence[str]) -> str:
    """Any of the words, as FTS5 spells it; what they hold is no syntax."""
    return " OR ".join('"' + term.replace('"', '""') + '"' for term in terms)
