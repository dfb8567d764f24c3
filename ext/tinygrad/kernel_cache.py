"""tinygrad's disk cache of compiled kernels, shared between threads, and what else every start would compute again.

Where the disk is full or read-only, kernels are kept for this process only. The cache also holds what compilers answered about their
features, and the programs of the CPU device's queue.
"""

import contextlib
import functools
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from ext.tinygrad.tinygrad_patches import version_warning
from ext.tinygrad.toolchain import processor_key

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


def compiler_identity(compiler: str) -> str:
    """Changes when the program is another one, or runs on another processor; asks no process."""
    found = os.path.realpath(shutil.which(compiler) or compiler)
    try:
        stat = os.stat(found)
    except OSError:
        return f"{found} is missing"
    return f"{found} {stat.st_size} {stat.st_mtime_ns} {processor_key()}"


def compiler_says(command: Sequence[str], timeout: float = 20.0) -> str:
    """What a compiler prints; started only once for as long as it stays the same.

    Raises OSError, CalledProcessError or TimeoutExpired."""
    from tinygrad.helpers import diskcache_get, diskcache_put

    key = f"{compiler_identity(command[0])} {' '.join(command[1:])}"
    said: str | None = diskcache_get("townhall_compiler", key)
    if said is None:
        run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=True)
        said = diskcache_put("townhall_compiler", key, run.stdout)
    return said


@contextlib.contextmanager
def queue_programs() -> Iterator[None]:
    """Within it, opening tinygrad's CPU device generates the four programs of its queue once for ever instead of once a start: 0.13 s."""
    from tinygrad.runtime import ops_cpu

    generate = ops_cpu.do_to_program
    ops_cpu.do_to_program = functools.partial(_program, generate)
    try:
        yield
    finally:
        ops_cpu.do_to_program = generate


@dataclass(frozen=True)
class _Program:
    """As much of a compiled kernel as the device asks for."""

    elf: Any  # tinygrad.device.TinyELF

    def to_elf(self) -> Any:
        return self.elf


def _program(generate: Callable[[Any, Any], Any], ast: Any, renderer: Any) -> _Program:
    from tinygrad.codegen import to_program_key
    from tinygrad.helpers import diskcache_get, diskcache_put

    # to_program_key is what tinygrad itself says that a program depends on, within one process and one compiler
    hash, *rest = to_program_key(ast, renderer)
    key = f"{hash.hex()} {rest} {compiler_identity(os.environ.get('CC', 'clang'))}"
    elf = diskcache_get("townhall_queue", key)
    return _Program(elf if elf is not None else diskcache_put("townhall_queue", key, generate(ast, renderer).to_elf()))
