"""What `townhall discord` was asked for, and the errors of a bot."""

from dataclasses import dataclass
from pathlib import Path

from ext.tinygrad.errors import TownhallError

MOST_WAITING, MOST_OF_ONE = 100, 5  # messages of a channel, and of one person in it, that wait for their answers


class DiscordError(TownhallError):
    """A bot that cannot be started or go on as the flags say."""


@dataclass(frozen=True)
class BotOptions:
    """`channels` are ids or names, in which every message is answered; without `users` anyone is."""

    first: str  # model id of who speaks where nothing else was chosen
    chats: Path
    channels: frozenset[str] = frozenset()
    users: frozenset[int] = frozenset()
    at_once: int = 64  # replies that are being written or wait for the model
    most_waiting: int = MOST_WAITING
    most_of_one: int = MOST_OF_ONE
