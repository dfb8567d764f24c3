"""Prefix cache: KV entries of personas in the user's cache folder, restored at the next start."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from ext.tinygrad import cache_files
from townhall.language_model import Cache

LIMIT = 1 << 30  # bytes; a head of 200 tokens takes 5 MB with the default model, 100 MB with one of 7 billion weights


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
        return cls(cache_files.folder("heads"), say=say)

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
        cache_files.touch(path)
        return True

    def keep(self, cache: Cache) -> None:
        """Store what `cache` holds, and let older files go where they are too many."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self._path(cache, cache.tokens)
            cache.snapshot(path)
            self._evict(path)
        except OSError as error:
            self._say(f"this persona could not be stored for the next start: {error.strerror or error} ({self.folder})")

    def _path(self, cache: Cache, tokens: Sequence[int]) -> Path:
        from app.models.llama.snapshot import key
        from ext.tinygrad.toolchain import processor_key

        # a home folder may serve several machines, whose kernels round differently
        identity = {**cache.identity, "processor": processor_key()}
        return self.folder / f"{key(identity, cache.capacity, list(tokens))}.safetensors"

    def _evict(self, newest: Path) -> None:
        size = newest.stat().st_size if newest.exists() else 0
        cache_files.make_room(newest, size, self.limit)
        if size > self.limit:
            newest.unlink(missing_ok=True)
