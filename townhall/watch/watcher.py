"""The watch itself: a file, or the files of a folder, each visited when something happens to it.

Change events come from watchfiles within milliseconds, and from a poll once a second.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from townhall.watch.answerers import ConversationPool
from townhall.watch.lock import Lock, WatchError
from townhall.watch.watched_file import Read, Reporter, WatchedFile

STEP = 10  # milliseconds without news, after which events are delivered; watchfiles' own 50 would be a third of what we promise
GROUPING = 200  # milliseconds: continuous saves are delivered all the same
POLLING = 100  # milliseconds between two looks, for WATCHFILES_FORCE_POLLING
PULSE = 1000  # milliseconds; a network's file system tells nothing


def notices(folders: Sequence[Path], stopped: Callable[[], bool], say: Callable[[str], None]) -> Iterator[set[Path]]:
    """Paths in `folders` that something happened to, as soon as it did; an empty set at the start and once a second. Ends when `stopped`.

    A folder may vanish and come back. Where the system tells of nothing there is the empty set only, and a line through `say`.
    """
    info = False
    while not stopped():
        there = {folder: _identity(folder) for folder in folders}
        found = [folder for folder, identity in there.items() if identity]
        if not found:
            yield set()
            time.sleep(PULSE / 5000)
            continue
        try:
            for changed in _info(found, stopped):
                yield changed
                if any(_identity(folder) != identity for folder, identity in there.items()):
                    break
        except FileNotFoundError:
            continue  # it vanished just now
        except (OSError, RuntimeError) as error:  # watchfiles' own error is one of the latter; no more inotify watches, say
            if not info:
                say(f"the system does not tell what happens in {found[0]}: {error}; its files are looked at once a second")
            info = True
            yield set()
            time.sleep(PULSE / 1000)


def _info(folders: Sequence[Path], stopped: Callable[[], bool]) -> Iterator[set[Path]]:
    # watchfiles' own generator begins to listen when it is first waited for, and what was saved just before that would be heard late
    from watchfiles._rust_notify import RustNotify

    class StopSignal:
        def is_set(self) -> bool:
            return stopped()

    stop: Any = StopSignal()
    polling = os.environ.get("WATCHFILES_FORCE_POLLING", "") not in ("", "0", "false", "disable", "disabled")
    with RustNotify([str(folder) for folder in folders], False, polling, POLLING, False, True) as watcher:
        yield set()
        while not isinstance(info := watcher.watch(GROUPING, STEP, PULSE, stop), str) or info == "timeout":
            yield set() if info == "timeout" else {Path(path) for _, path in info}


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


SUFFIXES = (".chat", ".txt")  # what of a folder is watched


class Watcher:
    """`target` is a file or a folder; it is locked against other watchers until `close`. WatchError where it cannot be watched."""

    def __init__(self, target: Path, read: Read, pool: ConversationPool, reporter: Reporter, stopped: Callable[[], bool]):
        self.target, self._reporter, self._stopped = target, reporter, stopped
        self.folder = target.is_dir()
        self._lock = Lock(target)
        self._make: Callable[[Path], WatchedFile] = lambda path: WatchedFile(path, read, pool, reporter, stopped, named=not self.folder)
        self._attended: dict[Path, WatchedFile] = {}
        self._lost = False  # the folder

    def once(self) -> int:
        """Answer what stands there now; how many replies that were."""
        return sum(self._known(path).attend(once=True) for path in self._paths() if not self._stopped())

    def run(self) -> None:
        """Answer until `stopped`."""
        place = Path(os.path.abspath(self.target))
        folders = (place,) if self.folder else (place.parent, Path(os.path.realpath(place)).parent)
        info = False
        for changed in notices(list(dict.fromkeys(folders)), self._stopped, self._reporter.note):
            self._round(changed)
            if not info:
                self._reporter.note(f"{self.target} is watched; Ctrl-C ends that")
            info = True

    @property
    def failed(self) -> bool:
        """Was there anything to complain of?"""
        return any(one.failed for one in self._attended.values())

    def close(self) -> None:
        """Let others watch."""
        for one in self._attended.values():
            one.release()
        self._lock.release()

    def _round(self, changed: set[Path]) -> None:
        for path in list(self._paths()):
            one = self._known(path)
            if not self._stopped() and one.due(changed):
                one.attend()
            if one.gone and self.folder:
                del self._attended[path]

    def _known(self, path: Path) -> WatchedFile:
        if path not in self._attended:
            self._attended[path] = self._make(path)
        return self._attended[path]

    def _paths(self) -> Iterator[Path]:
        """The files to look at: those that are there, and those that were."""
        if not self.folder:
            yield self.target
            return
        try:
            found = sorted(path for path in self.target.iterdir() if _counts(path))
        except OSError as error:
            found = []
            if not self._lost:
                self._reporter.complain(f"{self.target} cannot be read: {error.strerror}; it is watched for")
            self._lost = True
        else:
            if self._lost:
                self._reporter.note(f"{self.target} is there again")
            self._lost = False
        yield from found
        yield from set(self._attended).difference(found)


def _counts(path: Path) -> bool:
    return path.suffix in SUFFIXES and not path.name.startswith(".") and not path.is_dir()


def create(path: Path) -> None:
    """An empty file for a conversation to begin in, where there is none; WatchError for a name that looks like a mistake."""
    if path.suffix not in SUFFIXES:
        raise WatchError(f"{path} does not exist; name a file or a folder, or a new file that ends in {' or '.join(SUFFIXES)}")
    try:
        path.touch(exist_ok=True)
    except OSError as error:
        raise WatchError(f"{path} cannot be made: {error.strerror or error}") from error
