"""What a chat asks the planner for: a reply to what was said on its path."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from townhall.context.source import NoteSource, PromptSource, SourceRole
from townhall.formats.prompt_pieces import PromptTurn
from townhall.language_model import HasTokenizer
from townhall.logbook import restore
from townhall.logbook.log_syntax import LogTurn
from townhall.prompt import Prompt

NOTE = "author's note"


@dataclass(frozen=True)
class ChatNote:
    """An author's note: a text that stands `depth` messages before the end of every prompt."""

    text: str
    depth: int = 4
    role: SourceRole = "system"


@dataclass
class KnownIds:
    """The ids of a chat's replies as they were sampled, by message; belongs to the planner's thread."""

    model: str | None  # the fingerprint of the weights
    _found: dict[int, tuple[LogTurn, list[int] | None]] = field(default_factory=dict)

    def of(self, llama: HasTokenizer, prompt: Prompt, turn: LogTurn) -> list[int] | None:
        """None where they are not known, or where a person changed the text."""
        known = self._found.get(turn.id)
        if known is None or known[0] is not turn:
            known = self._found[turn.id] = turn, restore.kept_ids(llama, prompt, self.model, turn)
        return known[1]


@dataclass(frozen=True)
class ChatTurn:
    """`carried` is a reply that the answer begins with, as a part of it: all of it, or its first `upto` tokens and then `token`.

    `prefill` comes behind that. With `impersonate` the user's next line is asked for instead of an answer to `question`.
    """

    model: str
    said: Sequence[tuple[LogTurn, LogTurn]]
    question: str
    known: KnownIds
    carried: LogTurn | None = None
    upto: int | None = None
    token: int = 0
    prefill: str = ""
    impersonate: bool = False
    system: str = ""  # in the place of the persona's description
    note: ChatNote | None = None
    sampler: dict[str, Any] = field(default_factory=dict)  # settings that differ from the server's own
    seed: int | None = None  # None: the server's own, -1: another one each time
    max_tokens: int | None = None
    context: str | None = None
    think: bool | None = None
    stop: Sequence[str] = ()
    adapters: Sequence[tuple[str, float]] | None = None  # names and scales; None: the character's own
    libraries: Sequence[str] | None = None  # by name; None: the character's own
    score: int | None = None  # log-probabilities of `carried` with so many alternatives, instead of an answer

    def sources(self, speaker: str) -> list[PromptSource]:
        """What goes into the prompt beside the conversation."""
        note = self.note
        return [NoteSource(NOTE, note.text, note.depth, note.role, speaker=speaker)] if note else []

    def turns(self) -> list[PromptTurn]:
        """As formats see them, the question last."""
        found = []
        for question, answer in self.said:
            found += [
                PromptTurn("user", question.text),
                PromptTurn("assistant", answer.text, str((answer.facts or {}).get("reasoning") or "")),
            ]
        return [*found, PromptTurn("user", self.question)]
