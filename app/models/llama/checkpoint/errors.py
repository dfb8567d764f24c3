"""What a weights file can get wrong, told at the door."""

from ext.tinygrad.errors import TownhallError


class CheckpointError(TownhallError):
    """A weights file that cannot be used: names the file, the fault and the mend."""
