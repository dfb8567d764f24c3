"""What is wrong with training data."""

from ext.tinygrad.errors import TownhallError


class DataError(TownhallError):
    """A file of conversations that cannot be read or used; names the file, the line and the fault."""
