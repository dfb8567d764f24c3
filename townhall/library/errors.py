"""The errors a library's user can cause."""

from ext.tinygrad.errors import TownhallError


class LibraryError(TownhallError):
    """A library or a path that cannot be used; names it, the fault and the mend."""


class UnreadableFile(LibraryError):
    """A document that gives no text; says why, without the file's name."""
