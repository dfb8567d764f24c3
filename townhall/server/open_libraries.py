"""Libraries that chats name for themselves, kept open between their turns. Belongs to the thread that plans."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from townhall.context.source import PromptSources
from townhall.library.errors import LibraryError
from townhall.server.errors import APIError

if TYPE_CHECKING:
    from townhall.library.libraries import Library
    from townhall.library.library_source import LibrarySource

MOST = 8  # that are open at a time
SOURCE = "library"  # the name of their source


class OpenLibraries:
    """The newest MOST by name; one that was deleted, or made anew, is opened again."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, tuple[int, Library]] = OrderedDict()

    def instead(self, sources: PromptSources, names: Sequence[str] | None) -> PromptSources:
        """`sources` with these libraries in the place of their own; as they are where `names` is None. APIError as `source`."""
        return sources if names is None else sources.instead(SOURCE, self.source(names) if names else None)

    def source(self, names: Sequence[str]) -> "LibrarySource":
        """All of them as one. APIError where there is no such library."""
        from townhall.library.library_source import LibrarySource

        return LibrarySource([self._library(name) for name in dict.fromkeys(name.lower() for name in names)])

    def _library(self, name: str) -> "Library":
        from townhall.library.libraries import Library, library_path

        try:
            path = library_path(name)
            file = path.stat().st_ino if path.exists() else 0
            known = self._open.get(name)
            if known is None or known[0] != file:
                self._forget(name)
                library = Library.open(name)
                self._open[name] = library.index.path.stat().st_ino, library
                while len(self._open) > MOST:
                    self._forget(next(iter(self._open)))
        except LibraryError as error:
            raise APIError(400, str(error), "libraries", "library_not_found") from error
        self._open.move_to_end(name)
        return self._open[name][1]

    def _forget(self, name: str) -> None:
        if known := self._open.pop(name, None):
            known[1].close()
