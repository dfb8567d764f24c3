"""Folders of derived files in the user's cache: found, bounded in size, written whole or not at all."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

STALE_SECONDS = 86_400  # a .part file this old was abandoned


def folder(name: str) -> Path:
    """Townhall's folder of that name in the user's cache; it need not exist."""
    from platformdirs import user_cache_path

    return user_cache_path("townhall") / name


@contextlib.contextmanager
def written(path: Path) -> Iterator[Path]:
    """A path to write to that becomes `path` at the end: a reader or a crash never meets half a file; of two writers the last one stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def make_room(path: Path, nbytes: int, most_bytes: int) -> None:
    """Take away the files of the kind of `path` used longest ago until `nbytes` more fit, and what dead writers left."""
    files = []
    for file in path.parent.iterdir() if path.parent.exists() else ():
        with contextlib.suppress(OSError):  # another process may be tidying up as well
            stat = file.stat()
            if file.suffix == ".part" and time.time() - stat.st_mtime > STALE_SECONDS:
                file.unlink()
            elif file.suffix == path.suffix and file != path:
                files.append((stat.st_mtime, stat.st_size, file))
    total = sum(size for _, size, _ in files)
    for _, size, file in sorted(files):
        if total + nbytes <= most_bytes:
            break
        with contextlib.suppress(OSError):
            file.unlink()
        total -= size


def touch(path: Path) -> None:
    """Used: the last to be evicted."""
    with contextlib.suppress(OSError):
        os.utime(path)
