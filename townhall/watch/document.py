"""A watched file's bytes: read within bounds, appended to only while they are what was read.

Saves are detected by content alone. Times are too coarse (a save may fall into the tick of our own writing), and a new inode with the
same text in it is no change. `ReplyWriter` streams a reply into a document: its first words at once, more a few times a second.
"""

import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from townhall.watch.lock import FileChanged, FileGone, WatchError

MAX_BYTES = 4 << 20  # two thousand pages
BOM = b"\xef\xbb\xbf"
SETTLING = 0.01  # seconds that a new content must stand; an editor writes its buffers within less
LONGEST_SETTLING = 2.0


class Document:
    """`data` is what stands in the file as far as it was read or written here."""

    def __init__(self, path: Path):
        self.path = path
        self.data: bytes | None = None
        self.seen: tuple[int, ...] | None = None  # the file's marks when it was last read: cheap to compare, and only a hint
        self._fd: int | None = None  # of what was appended to last

    def look(self) -> bool:
        """Read the file once it has come to rest; is it another content than `data`, which it becomes? Gone, or WatchError."""
        data, ends = self._read(), time.monotonic() + LONGEST_SETTLING
        if data == self.data:
            return False
        while time.monotonic() < ends and self._fresh():
            time.sleep(SETTLING)
            if (now := self._read()) == data:
                break
            data = now
        if data == self.data:
            return False
        self.data = data
        return True

    def touched(self) -> bool:
        """Is there a sign that the file was written since it was last read?"""
        return self._sign() != self.seen

    @property
    def text(self) -> str:
        """With "\\n" for line ends; WatchError where the bytes are no text."""
        data = (self.data or b"").removeprefix(BOM)
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise WatchError(f"{self.path} is UTF-16 text; save it as UTF-8")
        if (at := data.find(b"\0")) >= 0:
            raise WatchError(f"{self.path}, line {_line(data, at)}: a zero byte; this is no text, and it is left alone")
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            where = f"line {_line(data, error.start)}: byte {data[error.start]:#04x} is not UTF-8"
            raise WatchError(f"{self.path}, {where}; save it as UTF-8 text") from error
        return text.replace("\r\n", "\n") if self.newline == "\r\n" else text

    @property
    def newline(self) -> str:
        """How the file's first line ends."""
        first, end, _ = (self.data or b"").partition(b"\n")
        return "\r\n" if end and first.endswith(b"\r") else "\n"

    def refuse_unwritable(self) -> None:
        """WatchError for a file that is marked read-only, also for root, or that cannot be opened for writing."""
        try:
            if not os.stat(self.path).st_mode & 0o222:
                raise WatchError(f"{self.path} is read-only; make it writable (chmod u+w), and save it again")
            with self._opened():
                pass
        except FileNotFoundError:
            raise FileGone from None
        except OSError as error:
            raise self._fault("cannot be written", error) from error

    def append(self, text: str) -> None:
        """Put `text` at the end, in one write; Changed, and nothing is written, where the file is not as it was. WatchError: no space."""
        new = text.replace("\n", self.newline).encode(errors="replace")
        try:
            with self._opened() as fd:
                self._compare(fd)
                self._append(fd, new)
        except FileNotFoundError:
            raise FileGone from None
        except OSError as error:
            raise self._fault("cannot be written", error) from error

    def cut(self, text: str) -> bool:
        """Take away all that follows `text`, which the file's text begins with; False where that cannot be determined to the byte."""
        kept = text.replace("\n", self.newline).encode()
        if (self.data or b"").startswith(BOM):
            kept = BOM + kept
        if not (self.data or b"").startswith(kept):
            return False
        try:
            with self._opened() as fd:
                self._compare(fd)
                os.ftruncate(fd, len(kept))
                self.data = kept
        except FileNotFoundError:
            raise FileGone from None
        except OSError as error:
            raise self._fault("cannot be written", error) from error
        return True

    def leave(self, text: str) -> None:
        """The file was renamed or removed while it was written to: put `text` at its end, wherever it is now."""
        if self._fd is not None:
            with suppress(OSError, FileChanged):
                self._compare(self._fd)
                self._append(self._fd, text.replace("\n", self.newline).encode())

    def close(self) -> None:
        """What was written is on the disk."""
        if self._fd is not None:
            with suppress(OSError):
                os.fsync(self._fd)
            os.close(self._fd)
        self._fd = None

    def _fresh(self) -> bool:
        """Was it written just now? Of a folder's old files none has to be waited for."""
        return self.seen is None or time.time() - self.seen[3] / 1e9 < LONGEST_SETTLING

    def _append(self, fd: int, new: bytes) -> None:
        assert self.data is not None
        written = 0
        try:
            while written < len(new):
                written += os.write(fd, new[written:])
        except OSError:
            with suppress(OSError):
                os.ftruncate(fd, len(self.data))  # half a character is worse than none
            raise
        now = _whole(fd)
        if now != self.data + new:
            # the file was saved between our read and our write: the version is theirs, only our piece must leave it
            if now.endswith(new):
                os.ftruncate(fd, len(now) - len(new))
            raise FileChanged
        self.data = now
        self.seen = _signature(os.fstat(fd))  # of what was written to, which need not be what stands at the path any more

    def _compare(self, fd: int) -> None:
        if _whole(fd) != self.data:
            raise FileChanged

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """The file that stands at the path now, never a new one."""
        fd = os.open(self.path, os.O_RDWR | os.O_APPEND | getattr(os, "O_CLOEXEC", 0))
        if self._fd is not None:
            os.close(self._fd)
        self._fd = fd
        yield fd

    def _read(self) -> bytes:
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0))  # a pipe must not be waited for
        except FileNotFoundError:
            self.seen = None
            raise FileGone from None
        except OSError as error:
            self.seen = self._sign()
            raise self._fault("cannot be read", error) from error
        try:
            found = os.fstat(fd)
            self.seen = _signature(found)
            if not stat.S_ISREG(found.st_mode):
                raise WatchError(f"{self.path} is not a file; name a text file or a folder of them")
            data = _whole(fd) if found.st_size <= MAX_BYTES else b"x" * (MAX_BYTES + 1)
        finally:
            os.close(fd)
        if len(data) > MAX_BYTES:
            raise WatchError(f"{self.path} is larger than {MAX_BYTES >> 20} MB; go on in a new file")
        return data

    def _sign(self) -> tuple[int, ...] | None:
        try:
            return _signature(os.stat(self.path))
        except OSError:
            return None

    def _fault(self, what: str, error: OSError) -> WatchError:
        return WatchError(f"{self.path} {what}: {error.strerror or error}")


def _signature(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_mode


def _whole(fd: int) -> bytes:
    """All bytes, or one more than are allowed."""
    parts, at = [], 0
    while at <= MAX_BYTES and (part := os.pread(fd, MAX_BYTES + 1 - at, at)):
        parts.append(part)
        at += len(part)
    return b"".join(parts)


def _line(data: bytes, at: int) -> int:
    return data.count(b"\n", 0, at) + 1


INTERVAL = 0.04  # seconds between two writes: as fast as eyes follow, slow enough for an editor that loads the file anew each time


class ReplyWriter:
    """Writes below what stands in `document`; every write may raise Changed. `said` is all that it was given."""

    def __init__(self, document: Document, lead: str):
        self._document, self._held, self.said = document, lead, ""
        self._written = 0.0  # when

    def write(self, piece: str) -> None:
        """Take the next words."""
        self.said += piece
        self._held += piece
        if self.said and time.monotonic() - self._written >= INTERVAL:
            self._flush()

    def end(self, tail: str) -> None:
        """Write what is left, and `tail` in the same stroke."""
        self._held += tail
        self._flush()

    def _flush(self) -> None:
        if self._held:
            self._document.append(self._held)
        self._held, self._written = "", time.monotonic()
