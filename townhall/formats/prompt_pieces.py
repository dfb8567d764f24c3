"""A prompt in pieces: text of the format may hold control tokens, text of messages never becomes one."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Piece:
    """A stretch of a prompt. `special`: written by the format, so a control token's spelling in it means that token."""

    text: str
    special: bool
    turn: int | None = None  # whose words: an index into the turns that the format was given


@dataclass(frozen=True)
class PromptTurn:
    """A message as a format sees it."""

    role: str  # "user" or "assistant"
    text: str


class PromptFormat(Protocol):
    """Lays a conversation out: the head, then for each exchange turn(question), the sampled answer, close()."""

    name: str
    stop: tuple[str, ...]  # strings that end a reply
    turn_by_turn: bool  # False: a turn's text depends on the others', so whole() must render every prompt

    def head(self) -> list[Piece]:
        """The persona: description and examples, pinned at the start of every prompt."""
        ...

    def turn(self, text: str) -> list[Piece]:
        """The user's words, up to the place where the answer begins."""
        ...

    def close(self) -> list[Piece]:
        """What follows an answer."""
        ...

    def whole(self, turns: list[PromptTurn]) -> list[Piece]:
        """Everything at once, from the head to the place where the answer to the last turn begins."""
        ...
