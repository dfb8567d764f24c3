"""What goes wrong between here and another server, each in one sentence."""

from ext.tinygrad.errors import TownhallError


class RemoteError(TownhallError):
    """Another server gave no answer; names it, the fault and what to do. `away`: it may well answer later, so the local model does now.

    `kept`: a part of the answer had come, and stands in the conversation.
    """

    def __init__(self, message: str, away: bool = False):
        super().__init__(message)
        self.away, self.kept = away, False
