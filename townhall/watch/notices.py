"""When to look: watchfiles tells of saves within milliseconds; once a second everything is looked at in any case."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from townhall.watch.errors import WatchError

STEP = 10  # milliseconds without news, after which what there is is told; watchfiles' own 50 would be a third of what we promise
GROUPING = 200  # milliseconds: somebody who never ceases to save is heard all the same
PULSE = 1000  # milliseconds; a network's file system tells nothing


def notices(folders: Sequence[Path], stopped: Callable[[], bool]) -> Iterator[set[Path]]:
    """Paths in `folders` that something happened to, as soon as it did; an empty set once a second. Ends when `stopped`.

    A folder may vanish and come back.
    """
    from watchfiles import watch

    class Stop:
        def is_set(self) -> bool:
            return stopped()

    stop: Any = Stop()
    while not stopped():
        there = {folder: _identity(folder) for folder in folders}
        found = [folder for folder, identity in there.items() if identity]
        if not found:
            time.sleep(PULSE / 5000)
            yield set()
            continue
        changes = watch(
            *found,
            watch_filter=None,
            debounce=GROUPING,
            step=STEP,
            rust_timeout=PULSE,
            yield_on_timeout=True,
            stop_event=stop,
            recursive=False,
        )
        try:
            for change in changes:
                yield {Path(path) for _, path in change}
                if any(_identity(folder) != identity for folder, identity in there.items()):
                    break
        except FileNotFoundError:
            continue  # it vanished just now
        except OSError as error:
            raise WatchError(f"{found[0]} cannot be watched: {error}") from error
        finally:
            changes.close()


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
