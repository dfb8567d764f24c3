"""One watcher for one file: a lock in the user's own folder, because the file itself is replaced whenever an editor saves by renaming.

And the errors of watched files.
"""

import hashlib
import os
from pathlib import Path

from ext.tinygrad.errors import TownhallError


class WatchError(TownhallError):
    """A file that cannot be answered, or not watched; names it, the fault and the mend."""


class FileChanged(Exception):
    """The file was saved meanwhile: what was being written belongs to an older version."""


class FileGone(FileChanged):
    """There is no such file now; an editor that saves by renaming puts another in its place at once."""


class Lock:
    """Held from the beginning to `release`, or to the end of the process; WatchError where another one holds it."""

    def __init__(self, path: Path):
        self._fd: int | None = None
        try:
            import fcntl
        except ImportError:  # Windows has none
            return
        from platformdirs import user_cache_dir

        folder = Path(user_cache_dir("townhall")) / "watched"
        name = f"{hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:32]}.lock"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:  # a home that nothing can be written to must not prevent a chat
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(fd)
            raise WatchError(f"{path} is already watched by another townhall; end that one first") from error
        self._fd = fd

    def release(self) -> None:
        """Let others watch."""
        if self._fd is not None:
            os.close(self._fd)
        self._fd = None
