"""Prefix cache: KV entries of personas in the user's cache folder, restored at the next start."""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from townhall.language_model import Cache

LIMIT = 1 << 30  # bytes; a head of 200 tokens takes 5 MB with the default model, 100 MB with one of 7 billion weights
STALE = 3600.0  # seconds; a part that old has lost its writer


class PrefixCache:
    """One file for each head, named by all that it depends on; the least recently used go when there are too many bytes.

    Any number of processes may share the folder: files appear whole, and one that vanished is as good as one that never was. Whatever
    goes wrong costs the snapshot only, and is said once in a line through `say`.
    """

    def __init__(self, folder: Path, limit: int = LIMIT, say: Callable[[str], None] = lambda line: None):
        self.folder, self.limit, self._say = folder, limit, say

    @classmethod
    def of_user(cls, say: Callable[[str], None] = lambda line: None) -> "PrefixCache":
        """In the folder where the platform keeps what can be made anew."""
        from platformdirs import user_cache_dir

        return cls(Path(user_cache_dir("townhall")) / "heads", say=say)

    def restore(self, cache: Cache, tokens: Sequence[int]) -> bool:
        """Fill `cache` with the head's entries; False, and an untouched cache, where there are none that can be trusted."""
        from app.models.llama.snapshot import SnapshotError

        path = self._path(cache, tokens)
        try:
            if not path.exists():
                return False
            cache.restore(path)
            if list(cache.tokens) != list(tokens):
                raise SnapshotError(f"{path} holds another head")
        except SnapshotError as error:
            with suppress(OSError):
                if path.exists():
                    self._say(f"a stored persona is not used: {error}; it is read anew")
                    path.unlink(missing_ok=True)
            return False
        except OSError as error:
            self._say(f"stored personas cannot be read: {error}")
            return False
        with suppress(OSError):
            os.utime(path)  # its time says when it was last of use; touch() would make an empty file of one that is gone by now
        return True

    def keep(self, cache: Cache) -> None:
        """Store what `cache` holds, and let older files go where they are too many."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            cache.snapshot(self._path(cache, cache.tokens))
            self._evict()
        except OSError as error:
            self._say(f"this persona could not be stored for the next start: {error.strerror or error} ({self.folder})")

    def _path(self, cache: Cache, tokens: Sequence[int]) -> Path:
        from app.models.llama.snapshot import key
        from ext.tinygrad.toolchain import processor_key

        # a home folder may serve several machines, whose kernels round differently
        identity = {**cache.identity, "processor": processor_key()}
        return self.folder / f"{key(identity, cache.capacity, list(tokens))}.safetensors"

    def _evict(self) -> None:
        files: list[tuple[float, int, Path]] = []
        for path in self.folder.iterdir():
            with suppress(FileNotFoundError):  # another process evicts as well
                stat = path.stat()
                if path.suffix == ".part" and stat.st_mtime < time.time() - STALE:
                    path.unlink()
                elif path.suffix == ".safetensors":
                    files.append((stat.st_mtime, stat.st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self.limit:
                return
            path.unlink(missing_ok=True)
            total -= size
