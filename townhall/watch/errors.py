"""What can be wrong with a watched file, and what can happen to it."""

from ext.tinygrad.errors import TownhallError


class WatchError(TownhallError):
    """A file that cannot be answered, or not watched; names it, the fault and the mend."""


class FileChanged(Exception):
    """The file was saved meanwhile: what was being written belongs to an older version."""


class FileGone(FileChanged):
    """There is no such file now; an editor that saves by renaming puts another in its place at once."""
