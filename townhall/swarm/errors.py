"""The errors of a swarm."""

from ext.tinygrad.errors import TownhallError


class SwarmError(TownhallError):
    """A swarm that cannot be started, reached or changed as asked; names the file, flag or model and the way out."""
