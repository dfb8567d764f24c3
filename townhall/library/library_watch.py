"""Keeps a library up to date while its documents change."""

from collections.abc import Callable, Iterator
from pathlib import Path

from townhall.library.indexer import Progress, UpdateReport, update
from townhall.library.libraries import Library

GROUPING = 300  # milliseconds in which saves count as one
PULSE = 1000  # milliseconds between looks at documents that were added by name: editors put a new file in an old one's place


def watch(library: Library, progress: Progress, stopped: Callable[[], bool]) -> Iterator[UpdateReport]:
    """What each update did that found something to do, until `stopped`."""
    for _ in _changes(library, stopped):
        report = update(library, progress=progress)
        if report.read or report.removed or report.faults:
            yield report


def _changes(library: Library, stopped: Callable[[], bool]) -> Iterator[None]:
    """Once at the beginning, as soon as something changes in a folder of the library, and once a second where it has single files."""
    from watchfiles import watch as watchfiles_watch

    class StopSignal:
        def is_set(self) -> bool:
            return stopped()

    folders = [root for root in library.index.roots() if root.is_dir()]
    files = [root for root in library.index.roots() if not root.is_dir()]
    first, before = True, _stamps(files)
    watched = watchfiles_watch(
        *(folders or [library.index.path.parent]),
        debounce=GROUPING,
        rust_timeout=PULSE,
        stop_event=StopSignal(),
        yield_on_timeout=True,
        raise_interrupt=False,
        watch_filter=None if folders else lambda change, path: False,
    )
    for changed in watched:
        now = _stamps(files)
        if first or changed or now != before:
            yield None
        first, before = False, now


def _stamps(paths: list[Path]) -> list[tuple[int, int] | None]:
    found: list[tuple[int, int] | None] = []
    for path in paths:
        try:
            stat = path.stat()
        except OSError:
            found.append(None)
        else:
            found.append((stat.st_mtime_ns, stat.st_size))
    return found
