"""One log, open for appending: locked against other writers, on the disk turn by turn."""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from townhall.errors import LogError
from townhall.logbook import log_syntax

SUFFIX = ".md"


def new_id() -> str:
    """A name that sorts by time: 20261122-021500-3fa9c1."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{os.urandom(3).hex()}"


class LogWriter:
    """Appends whole turns to `path`; the file, and its folder, are made with the first one.

    A disk that is full or gone does not end the conversation: what could not be written is kept and tried again with the next turn, and a
    line through `say` tells when that begins and when it is over. LogError where another process is writing to this log.
    """

    def __init__(self, path: Path, head: Mapping[str, Any], say: Callable[[str], None] = lambda line: None):
        self.path, self.head, self._say = path, head, say
        self._fd: int | None = None
        self._pending = b""  # what the disk has not taken yet
        self._failing = False
        if path.exists():
            self._fd = self._open()

    @property
    def begun(self) -> bool:
        """Has anything been said yet?"""
        return self._fd is not None or bool(self._pending)

    def append(self, text: str) -> None:
        """Whole turns, at the end, and on the disk when this returns."""
        self._pending += text.encode(errors="replace")
        try:
            self._write()
        except (OSError, LogError) as error:
            if not self._failing:
                reason = f"{error.strerror or error} ({self.path})" if isinstance(error, OSError) else str(error)
                self._say(f"this conversation is not being kept, and goes on all the same: {reason}")
            self._failing = True
            return
        if self._failing:
            self._say(f"this conversation is kept again, whole ({self.path})")
        self._failing = False

    def close(self) -> None:
        """Let others write."""
        if self._fd is not None:
            os.close(self._fd)
        self._fd = None

    def _write(self) -> None:
        fd = self._attached()
        before = os.fstat(fd).st_size
        data = self._pending if before else log_syntax.front_matter(self.head).encode() + self._pending
        if before and os.pread(fd, 1, before - 1) != b"\n":
            data = b"\n" + data  # an editor, or a crash, left the last line without an end
        try:
            written = 0
            while written < len(data):
                written += os.write(fd, data[written:])
            os.fsync(fd)
        except OSError:
            with suppress(OSError):
                os.ftruncate(fd, before)  # half a turn is worse than none
            raise
        self._pending = b""

    def _attached(self) -> int:
        """The file that stands at the path now: editors put a new one into its place when they save."""
        if self._fd is not None:
            ours = os.fstat(self._fd)
            with suppress(FileNotFoundError):
                theirs = os.stat(self.path)
                if (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino):
                    return self._fd
            self.close()
        self._fd = self._open()
        return self._fd

    def _open(self) -> int:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        try:
            self._lock(fd)
            _sync_folder(self.path.parent)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _lock(self, fd: int) -> None:
        try:
            import fcntl
        except ImportError:  # Windows has none
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LogError(f"log {self.path} is being written by another townhall; end that one, or keep this talk elsewhere") from error


def write_whole(path: Path, head: Mapping[str, Any], turns: str) -> None:
    """A log at once, where nothing lies yet: all of it or nothing. LogError where it cannot be."""
    if path.suffix != SUFFIX:
        raise LogError(f"{path} is no name of a log; end it in {SUFFIX}")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write((log_syntax.front_matter(head) + turns).encode(errors="replace"))
            file.flush()
            os.fsync(file.fileno())
        if not _put(part, path):
            raise LogError(f"{path} is there already, and stays as it is; name another file")
        _sync_folder(path.parent)
    except OSError as error:
        raise LogError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            part.unlink()


def _put(part: Path, path: Path) -> bool:
    """Give a file its name, unless something has that name already."""
    try:
        os.link(part, path)  # unlike a rename, it leaves alone what lies there
    except FileExistsError:
        return False
    except OSError:  # a file system without links
        if path.exists():
            return False
        part.rename(path)
    return True


def _sync_folder(folder: Path) -> None:
    """A new file's name is on the disk, too."""
    with suppress(OSError):  # some file systems know no such thing
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
