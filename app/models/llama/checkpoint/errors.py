"""Errors in a weights file, raised when it is opened."""

from ext.tinygrad.errors import TownhallError


class CheckpointError(TownhallError):
    """A weights file that cannot be used: names the file, the fault and the mend."""
