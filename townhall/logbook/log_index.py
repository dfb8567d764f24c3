"""What all logs of a folder hold, in SQLite, to be listed and searched. The text is the truth: the index follows it or is made anew."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from townhall.errors import LogError
from townhall.logbook.log_reader import Log, read_log
from townhall.logbook.log_writer import SUFFIX

NAME = "index.sqlite"
VERSION = 3
_TABLES = """
CREATE TABLE log (
    name TEXT PRIMARY KEY, size INTEGER, changed INTEGER,
    id TEXT, started TEXT, persona TEXT, model TEXT, turns INTEGER, first TEXT, damages INTEGER, fault TEXT, title TEXT,
    user TEXT, served_as TEXT, folder TEXT, tags TEXT
);
CREATE TABLE turn (
    log TEXT, line INTEGER, role TEXT, speaker TEXT, text TEXT, folded TEXT, message INTEGER, standing INTEGER, at TEXT,
    PRIMARY KEY (log, line)
);
"""
_ENTRY = (
    *("name", "id", "started", "persona", "model", "turns", "first", "damages", "fault", "title"),
    *("user", "served_as", "folder", "tags", "changed"),
)


@dataclass(frozen=True)
class LogEntry:
    """A log, in short; `fault` says why it cannot be read at all."""

    name: str  # of its file
    id: str
    started: str
    persona: str
    model: str
    turns: int
    first: str  # what the user began with
    damages: int
    fault: str | None
    title: str = ""  # given by the user
    user: str = ""  # the user's name in it
    served_as: str = ""  # the model id of the server that kept it
    folder: str = ""  # that the user put it in
    tags: tuple[str, ...] = ()
    changed: int = 0  # nanoseconds since 1970


@dataclass(frozen=True)
class Found:
    """A turn in which all the words occur; `standing`: is it on the path that the talk goes?"""

    id: str
    line: int
    speaker: str
    text: str
    message: int = 0  # its number in the log's tree
    standing: int = 1  # or 0
    role: str = ""
    at: str = ""
    name: str = ""  # of the log's file


class Index:
    """Of the logs in `folder`. Opening it brings it up to date: only files that changed are read."""

    def __init__(self, folder: Path, anew: bool = False):
        self.folder, self.path = folder, folder / NAME
        self._db = self._open(anew)

    def close(self) -> None:
        self._db.close()

    def entries(self) -> list[LogEntry]:
        """Every log, the newest first."""
        rows = self._db.execute(f"SELECT {', '.join(_ENTRY)} FROM log ORDER BY started DESC, name DESC")
        found = [dict(zip(_ENTRY, row, strict=True)) for row in rows]
        return [LogEntry(**{**row, "tags": tuple(json.loads(row["tags"]))}) for row in found]

    def search(self, words: str, most: int = -1, skip: int = 0) -> list[Found]:
        """The turns that hold every one of the words, the newest log first; upper and lower case are one. Those that were taken back are
        left out, those of other branches are not."""
        where, wanted = _holds(words)
        rows = self._db.execute(
            "SELECT log.id, line, speaker, text, message, standing, role, at, log.name FROM turn JOIN log ON log.name = turn.log "
            f"WHERE {where} ORDER BY started DESC, log.name DESC, line LIMIT ? OFFSET ?",
            [*wanted, most, skip],
        )
        return [Found(*row) for row in rows]

    def count(self, words: str) -> int:
        """How many turns that is."""
        where, wanted = _holds(words)
        return int(self._db.execute(f"SELECT COUNT(*) FROM turn WHERE {where}", wanted).fetchone()[0])

    def holding(self, words: str) -> set[str]:
        """Names of the files of those logs whose title or turns hold all of the words, in one turn or in several."""
        wanted = words.casefold().split()
        names = {entry.name for entry in self.entries()}
        titles = {entry.name: entry.title.casefold() for entry in self.entries()}
        for word in wanted:
            rows = self._db.execute("SELECT DISTINCT log FROM turn WHERE instr(folded, ?) > 0", [word])
            names &= {name for (name,) in rows} | {name for name, title in titles.items() if word in title}
        return names

    def find(self, wanted: str) -> Path:
        """The file of the log that is called so: "last", an id or its beginning, or a path. LogError where that is none or several."""
        if Path(wanted).suffix == SUFFIX or len(Path(wanted).parts) > 1:
            return Path(wanted)
        entries = self.entries()
        if wanted == "last" and entries:
            return self.folder / entries[0].name
        matching = [entry for entry in entries if entry.id.startswith(wanted)]
        if len(matching) == 1:
            return self.folder / matching[0].name
        if matching:
            raise LogError(f"{len(matching)} logs begin with {wanted!r}, the newest is {matching[0].id}; pass more of the id")
        raise LogError(
            f"no log in {self.folder} is called {wanted!r}; `townhall log list` names them, and a path of a {SUFFIX} file is taken too"
        )

    def last(self, suits: Callable[[Log], bool]) -> Path:
        """The newest log that suits, or that is in the way of finding one; where none does, the newest. LogError where there is none."""
        for entry in self.entries():
            path = self.folder / entry.name
            if entry.fault or suits(read_log(path)):
                return path
        return self.find("last")

    def rows(self) -> list[tuple[Any, ...]]:
        """All that the index says, without when files changed: two indexes of the same text are equal."""
        logs = self._db.execute(
            "SELECT name, size, id, started, persona, model, turns, first, damages, fault, title, user, served_as, folder, tags "
            "FROM log ORDER BY name"
        )
        return [*logs, *self._db.execute("SELECT * FROM turn ORDER BY log, line")]

    def _open(self, anew: bool) -> sqlite3.Connection:
        """The index as it is; else a new one in its place; in a folder that takes none, one in memory, for this once."""
        for again, path in enumerate((self.path, self.path, None)):
            if anew or again:
                self._discard()
            db = None
            try:
                db = self._ready(path)
                self._follow(db)
            except sqlite3.DatabaseError:
                if db:
                    db.close()
                if path is None:
                    raise
            else:
                return db
        raise AssertionError

    def _ready(self, path: Path | None) -> sqlite3.Connection:
        if path and not self.folder.is_dir():
            path = None
        db = sqlite3.connect(path or ":memory:", timeout=10)
        try:
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("BEGIN IMMEDIATE")
            if db.execute("PRAGMA user_version").fetchone()[0] != VERSION:
                drop = "DROP TABLE IF EXISTS log; DROP TABLE IF EXISTS turn;"
                db.executescript(f"BEGIN IMMEDIATE; {drop} {_TABLES} PRAGMA user_version = {VERSION}; COMMIT;")
            db.commit()
        except BaseException:
            db.close()
            raise
        return db

    def _discard(self) -> None:
        for suffix in ("", "-journal", "-wal", "-shm"):
            with suppress(OSError):
                self.path.with_name(NAME + suffix).unlink()

    def _follow(self, db: sqlite3.Connection) -> None:
        """Read what is new or changed, forget what is gone."""
        known = {name: (size, changed) for name, size, changed in db.execute("SELECT name, size, changed FROM log")}
        with db:
            for name, stamp in self._files():
                if known.pop(name, None) != stamp:
                    self._store(db, name, *stamp)
            for name in known:
                _forget(db, name)

    def _files(self) -> Iterator[tuple[str, tuple[int, int]]]:
        if not self.folder.is_dir():
            return
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            with suppress(OSError):  # gone meanwhile
                stat = path.stat()
                yield path.name, (stat.st_size, stat.st_mtime_ns)

    def _store(self, db: sqlite3.Connection, name: str, size: int, changed: int) -> None:
        _forget(db, name)
        fault = None
        try:
            log = read_log(self.folder / name)
        except LogError as error:
            log, fault = Log(self.folder / name, {}), str(error)
        first = next((turn.text for turn in log.turns if turn.role == "user"), "")
        settings = log.head.get("settings") or {}
        model = settings.get("model") or settings.get("size") or "default"
        info = [log.id, *(str(log.head.get(key) or "") for key in ("started", "persona")), str(model)]
        chat = log.tree.settings
        tags = json.dumps([tag for tag in chat.get("tags") or () if isinstance(tag, str)] if isinstance(chat.get("tags"), list) else [])
        served_as = str(chat.get("model") or log.head.get("served_as") or "")
        row = [name, size, changed, *info, len(log.turns), first, len(log.damages), fault, log.title]
        row += [str(log.head.get("user") or ""), served_as, str(chat.get("folder") or ""), tags]
        db.execute(f"INSERT INTO log VALUES ({', '.join('?' * len(row))})", row)
        standing = {turn.id for turn in log.turns}
        turns = [(node.turn, str(node.facts.get("at") or "")) for node in log.tree]
        db.executemany(
            "INSERT INTO turn VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (name, turn.line, turn.role, turn.name, turn.text, turn.text.casefold(), turn.id, turn.id in standing, at)
                for turn, at in turns
            ],
        )


def _holds(words: str) -> tuple[str, list[str]]:
    """(a condition of SQL, its values)."""
    wanted = words.casefold().split()
    return " AND ".join(["instr(folded, ?) > 0"] * len(wanted)) or "1", wanted


def _forget(db: sqlite3.Connection, name: str) -> None:
    db.execute("DELETE FROM log WHERE name = ?", (name,))
    db.execute("DELETE FROM turn WHERE log = ?", (name,))
