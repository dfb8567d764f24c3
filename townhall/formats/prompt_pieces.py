"""A prompt in pieces: text of the format may hold control tokens, text of messages never becomes one."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Piece:
    """A stretch of a prompt. `special`: written by the format, so a control token's spelling in it means that token."""

    text: str
    special: bool
    turn: int | None = None  # whose words: an index into the turns that the format was given


def text_of(pieces: Iterable[Piece]) -> str:
    """How the pieces read."""
    return "".join(piece.text for piece in pieces)


@dataclass(frozen=True)
class ToolCall:
    """A function that the model wants called; `arguments` is a JSON object as text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class PromptTurn:
    """A message as a format sees it.

    `calls` and the role "tool" are for templates that lay them out; where a template does not, both are spelled in `text`.
    """

    role: str  # "user", "assistant" or "tool"
    text: str
    reasoning: str = ""  # what an assistant thought before it
    calls: tuple[ToolCall, ...] = ()  # that an assistant made
    call_id: str = ""  # the call whose result a tool's text is
    name: str = ""  # of that tool, where it is known
    result: bool = False  # of a call: it belongs to the exchange in which that was made, whoever's role it has

    @property
    def structured(self) -> bool:
        """Is it more than a text in a role, so that only the template can lay it out?"""
        return self.role == "tool" or bool(self.calls)

    @property
    def spelled(self) -> str:
        """The text, and calls in a form that people read."""
        return "\n".join([*filter(None, [self.text]), *(f"{call.name}({call.arguments})" for call in self.calls)])


class PromptFormat(Protocol):
    """Lays a conversation out: the head, then for each exchange turn(question), the answer as sampled or reply(answer), close()."""

    name: str
    stop: tuple[str, ...]  # strings that end a reply

    @property
    def turn_by_turn(self) -> bool:
        """False: a turn's text depends on the others', so whole() must render every prompt."""
        ...

    @property
    def fixed_head(self) -> bool:
        """Does every prompt begin with head(), whatever is said?"""
        ...

    def head(self) -> list[Piece]:
        """The persona: description and examples, pinned at the start of every prompt."""
        ...

    def turn(self, text: str) -> list[Piece]:
        """The user's words, up to the place where the answer begins."""
        ...

    def reply(self, text: str) -> list[Piece]:
        """An answer as it stands in the history, from where the turn before it ends."""
        ...

    def close(self) -> list[Piece]:
        """What follows an answer."""
        ...

    def whole(self, turns: Sequence[PromptTurn]) -> list[Piece]:
        """Everything at once, from the head to the place where the answer to the last turn begins."""
        ...
