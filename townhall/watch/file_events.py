"""Change events of files: from watchfiles within milliseconds, and a poll once a second."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

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
