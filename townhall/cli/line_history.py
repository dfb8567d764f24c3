"""The history of input lines over sessions: one JSON string a line, the newest last, in the user's own folder."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

KEPT = 1000  # lines that a file is cut back to, once it holds twice as many
LONGEST = 20_000  # characters; longer lines were pasted and are not kept
MOST_BYTES = 4 << 20  # read from the end of a file of any size


def default_file() -> Path:
    """Where the lines of all sessions lie."""
    from platformdirs import user_data_dir

    return Path(user_data_dir("townhall")) / "history.jsonl"


class LineHistory:
    """The lines of a file, and what is typed now behind them. A file that cannot be read or written is done without.

    Sessions at once append and cut under a lock, so that none loses another's lines; each sees those that were there when it began.
    """

    def __init__(self, path: Path, keep: bool = True):
        self.path, self._keep = path, keep

    def load(self) -> list[str]:
        """The lines kept, the oldest first."""
        with suppress(OSError):
            fd = os.open(self.path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a pipe in its place must not block
            try:
                return _lines(_tail(fd))[-KEPT:]
            finally:
                os.close(fd)
        return []

    def append(self, text: str) -> None:
        """Keep one line."""
        if not self._keep or len(text) > LONGEST:
            return
        with suppress(OSError), self._locked() as fd:
            if os.fstat(fd).st_size > MOST_BYTES or _tail(fd).count(b"\n") >= 2 * KEPT:
                self._cut(fd)
            end = os.lseek(fd, 0, os.SEEK_END)
            torn = end and _read_at(fd, end - 1, 1) != b"\n"  # a crash, or a full disk, left half a line
            _write(fd, (b"\n" if torn else b"") + _encoded(text))

    @contextmanager
    def _locked(self) -> Iterator[int]:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0), 0o600)
        try:
            with suppress(ImportError):  # Windows has none
                import fcntl

                fcntl.flock(fd, fcntl.LOCK_EX)
                os.fchmod(fd, 0o600)
            yield fd
        finally:
            os.close(fd)

    def _cut(self, fd: int) -> None:
        """Keep the newest lines, in the same file, for another session may wait for its lock; a crash in between costs old lines only."""
        kept = b"".join(_encoded(line) for line in _lines(_tail(fd))[-KEPT:])
        os.lseek(fd, 0, os.SEEK_SET)
        _write(fd, kept)
        os.ftruncate(fd, len(kept))


def _encoded(text: str) -> bytes:
    return (json.dumps(text) + "\n").encode()


def _lines(data: bytes) -> list[str]:
    """Damaged lines are left out."""
    found = []
    for line in data.splitlines():
        with suppress(ValueError, RecursionError):
            text = json.loads(line)
            if isinstance(text, str) and text and len(text) <= LONGEST:
                # json takes lone surrogates, which nothing can print
                found.append(text.encode(errors="replace").decode())
    return found


def _tail(fd: int) -> bytes:
    size = os.fstat(fd).st_size
    return _read_at(fd, max(0, size - MOST_BYTES), MOST_BYTES)


def _read_at(fd: int, at: int, size: int) -> bytes:
    os.lseek(fd, at, os.SEEK_SET)
    data = b""
    while len(data) < size and (piece := os.read(fd, size - len(data))):
        data += piece
    return data


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
