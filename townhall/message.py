"""Messages with the token ids that the model saw or sampled, so that a history is tokenised once."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from townhall.formats.prompt_pieces import PromptTurn

Role = Literal["user", "assistant"]


@dataclass(frozen=True)
class Message:
    """One turn; `ids` are all the tokens it takes in a prompt, its role's markers included."""

    id: int  # its place in the history
    role: Role
    text: str
    ids: tuple[int, ...]
    sampled: bool = False  # by the model; else `ids` are laid out from `text`
    reasoning: str = ""  # what the model thought before it; no part of `text`, nor of `ids`
    turns: tuple[PromptTurn, ...] = ()  # of a question that the model called functions for: the user's, the calls, the results …

    @property
    def laid_out(self) -> tuple[PromptTurn, ...]:
        """As a format sees it."""
        return self.turns or (PromptTurn(self.role, self.text, self.reasoning),)


@dataclass(frozen=True)
class Exchange:
    """A question and its answer: they stay in the window together or leave it together."""

    user: Message
    reply: Message

    @property
    def messages(self) -> tuple[Message, Message]:
        return (self.user, self.reply)

    @property
    def tokens(self) -> int:
        return len(self.user.ids) + len(self.reply.ids)


NOT_SAID = -1  # the id of messages that are no part of the history


@dataclass(frozen=True)
class Note:
    """A sentence or two that the model wrote down."""

    text: str
    sources: tuple[int, ...]  # ids of the messages it came from


@dataclass(frozen=True)
class Memory:
    """What the model wrote down about exchanges before they left the window; in a prompt it stands as an exchange of its own."""

    notes: tuple[Note, ...]  # the oldest first
    exchange: Exchange  # of two messages whose id is NOT_SAID

    @property
    def text(self) -> str:
        return " ".join(note.text for note in self.notes)

    @property
    def sources(self) -> tuple[int, ...]:
        """Ids of the messages it came from."""
        return tuple(source for note in self.notes for source in note.sources)

    @property
    def ids(self) -> tuple[int, ...]:
        return self.exchange.user.ids + self.exchange.reply.ids


def messages_of(exchanges: Iterable[Exchange]) -> tuple[Message, ...]:
    """The messages of several exchanges, in order."""
    return tuple(message for exchange in exchanges for message in exchange.messages)
