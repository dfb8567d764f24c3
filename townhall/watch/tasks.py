"""Parses a watched file: the turn to answer, or the free-form text to continue."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from townhall.transcript import paired
from townhall.watch.chat_syntax import ChatSyntax, WrittenTurn

Asked = tuple[tuple[str, str], ...]  # (question, answer) in turn, the last answer ""


@dataclass(frozen=True)
class InterruptedReply:
    """A reply that a save put an end to: what it was an answer to, and what had been said of it."""

    asked: Asked
    said: str


@dataclass(frozen=True)
class Task:
    """A reply that is wanted below `base`, which the file's text begins with; what follows `base` in the file is taken away first."""

    base: str
    lead: str  # written with the first words
    asked: Asked
    said: str = ""  # the reply's first words, which stand in `base`


class TaskParser(Protocol):
    """Text in, task out."""

    @property
    def unmistakable(self) -> bool:
        """Is a task a task, even in a file that was neither named nor touched since?"""
        ...

    def task(self, text: str, interrupted: InterruptedReply | None = None) -> Task | None:
        """What `text` asks for; None where nothing is to be done. `interrupted`: the save put an end to this reply."""
        ...

    def tail(self, said: str) -> str:
        """What follows a reply that is over."""
        ...

    def opening(self, text: str) -> str:
        """What must follow `text`, which asks for nothing, so that a person can go on; "" where it is all there."""
        ...

    def speaks(self, text: str) -> bool:
        """Is `text` one of ours, as far as can be seen?"""
        ...

    def hint(self, text: str) -> str:
        """What is expected of `text`, which asks for nothing; "" where it is as it should be."""
        ...


@dataclass(frozen=True)
class ChatTurns:
    """A conversation: the persona answers when the file ends in a turn of the user's."""

    layout: ChatSyntax
    unmistakable = True

    def task(self, text: str, interrupted: InterruptedReply | None = None) -> Task | None:
        turns = self.layout.turns(text)
        if not turns or not turns[-1].text:
            return None
        last = turns[-1]
        if last.role == "user":
            return Task(text, self.layout.cue(text, self.layout.persona), _asked(turns))
        asked = _asked(turns[:-1])
        if interrupted is None or not asked:
            return None
        if asked != interrupted.asked and interrupted.said.startswith(last.text):
            above = text[: last.start]  # our own words stand below a question that is another now
            return Task(above, self.layout.cue(above, self.layout.persona), asked)
        # words that were written, or left standing: the reply begins with them
        return Task(text.rstrip(), "", asked, last.text)

    def tail(self, said: str) -> str:
        return self.layout.cue(said or " ", self.layout.user)

    def opening(self, text: str) -> str:
        turns = self.layout.turns(text)
        return self.layout.cue(text, self.layout.user) if not turns or turns[-1].role == "assistant" else ""

    def speaks(self, text: str) -> bool:
        return bool(self.layout.turns(text))

    def hint(self, text: str) -> str:
        turns = self.layout.turns(text)
        if turns and turns[-1].role == "user":
            return ""
        fault = f"its last turn is {self.layout.persona}'s" if turns else "nobody speaks in it"
        return f"{fault}; begin yours with a line '{self.layout.user}: ...'"


@dataclass(frozen=True)
class FreeForm:
    """A text of any kind, carried on from its last word when its last line says so: `marker`, or a blank one where that is ""."""

    marker: str = ""
    unmistakable = False  # many a text ends in a blank line

    def task(self, text: str, interrupted: InterruptedReply | None = None) -> Task | None:
        base = text.rstrip()
        if self.marker:
            *above, last = base.rsplit("\n", 1)
            if last.strip() != self.marker:
                return None
            base = "".join(above).rstrip()
        elif text[len(base) :].count("\n") < 2:
            return None
        return Task(base, "", (("", base),)) if base else None

    def tail(self, said: str) -> str:
        return "" if said.endswith("\n") else "\n"

    def opening(self, text: str) -> str:
        return ""

    def speaks(self, text: str) -> bool:
        return False

    def hint(self, text: str) -> str:
        sign = f"a last line {self.marker}" if self.marker else "a blank line at its end"
        return f"save it with {sign} to have it carried on"


def _asked(turns: Sequence[WrittenTurn]) -> Asked:
    spoken = [turn for turn in turns if turn.text]
    return tuple((question, answer) for _, question, answer in paired(spoken)) if spoken else ()
