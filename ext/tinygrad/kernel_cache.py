"""tinygrad's disk cache of compiled kernels, outlived: where the disk is full or read-only, kernels are kept for this process only."""

import os
import sqlite3
import sys
from contextlib import suppress
from typing import Any, Self

from ext.tinygrad.tinygrad_patches import version_warning

# a model may be loaded by one thread and served by another; SQLite built as usual locks by itself
ONE_THREAD = sqlite3.threadsafety != 3


class _Cursor(sqlite3.Cursor):
    def execute(self, sql: str, parameters: Any = ()) -> Self:
        try:
            return super().execute(sql, parameters)
        except sqlite3.OperationalError:
            if sql.startswith("SELECT"):
                raise  # tinygrad takes that for a kernel which is not there
            _give_up()
            return self  # this one kernel will be compiled again


class _Shared(sqlite3.Connection):
    """One that we opened."""


class Connection(_Shared):
    """Where it cannot write, a connection to memory takes its place."""

    def cursor(self, factory: Any = _Cursor) -> Any:
        return super().cursor(factory)

    def commit(self) -> None:
        try:
            super().commit()
        except sqlite3.OperationalError:
            self.rollback()
            _give_up()


def install() -> None:
    """Open tinygrad's cache, in place of a connection of its own: no failure of the disk then reaches who waits for a kernel."""
    from tinygrad import helpers

    if isinstance(helpers._db_connection, _Shared):
        return
    if warning := version_warning():
        print(f"townhall: {warning}", file=sys.stderr)
    try:
        os.makedirs(os.path.dirname(helpers.CACHEDB), exist_ok=True)
        connection = sqlite3.connect(
            helpers.CACHEDB, timeout=60, isolation_level="IMMEDIATE", factory=Connection, check_same_thread=ONE_THREAD
        )
        with suppress(sqlite3.OperationalError):  # another process is just doing so
            connection.execute("PRAGMA journal_mode=WAL").fetchone()
        connection.execute("PRAGMA synchronous=NORMAL")
        helpers._db_connection = connection
    except (OSError, sqlite3.Error):
        _give_up()


def _give_up() -> None:
    from tinygrad import helpers

    os.environ["CACHELEVEL"] = "0"  # for the processes that tinygrad starts to compile in: they open a cache of their own
    helpers._db_connection = sqlite3.connect(":memory:", isolation_level="IMMEDIATE", factory=_Shared, check_same_thread=ONE_THREAD)
    helpers._db_tables.clear()
