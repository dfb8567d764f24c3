"""Parses a watched file: the turn to answer, or the free-form text to continue; docs/watch.md is the user's description.

How a conversation is written as plain text, by people and by Townhall:

    ---
    personality: stacy
    temperature: 0
    ---
    Text before the first turn belongs to no turn.

    User: How far is the moon?

    Stacy: About 384,000 km.

    User:

A line that begins with a speaker's name and a colon begins a turn, which lasts to the next such line.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from townhall.formats.prompt_pieces import PromptTurn
from townhall.transcript import paired
from townhall.watch.lock import WatchError

DELIM = "\n\n"
FENCE = "---"


@dataclass(frozen=True)
class WrittenTurn(PromptTurn):
    """A turn and where it begins: `start` is the index of its cue in the file's text."""

    start: int = 0


@dataclass(frozen=True)
class ChatSyntax:
    """Two speakers' names, and what stands between turns: it begins and ends with a line's end."""

    user: str
    persona: str
    delim: str = DELIM

    def turns(self, text: str) -> list[WrittenTurn]:
        """Who said what, in order; `text` has "\\n" for line ends.

        Words are as they were written, between the space after the cue and the blank lines and delimiter before the next one.
        """
        cues = list(self._cue.finditer(text, front_matter(text)[1]))
        ends = [*(cue.start() for cue in cues[1:]), len(text)]
        return [self._turn(cue, text[cue.end() : end]) for cue, end in zip(cues, ends)]

    def cue(self, text: str, name: str) -> str:
        """What must follow `text` so that `name` may speak: as much of the delimiter as is not there yet, and the cue."""
        if not text:
            return f"{name}: "
        missing = len(self.delim) - len(self.delim.lstrip("\n")) - (len(text) - len(text.rstrip("\n")))
        return "\n" * missing + self.delim.lstrip("\n") + f"{name}: "

    def _turn(self, cue: re.Match[str], words: str) -> WrittenTurn:
        said, mark = words.strip(), self.delim.strip()
        if mark and (said == mark or said.endswith(f"\n{mark}")):
            words = words.rstrip().removesuffix(mark)
        return WrittenTurn("user" if cue[1] == self.user else "assistant", _between_blank_lines(words), start=cue.start())

    @cached_property
    def _cue(self) -> re.Pattern[str]:
        return re.compile(rf"^({re.escape(self.user)}|{re.escape(self.persona)}):", re.MULTILINE)


def front_matter(text: str) -> tuple[str, int]:
    """The settings on top, on the same lines as in the file, and where the conversation begins; ("", 0) where there are none."""
    if not re.match(rf"{FENCE}[ \t]*\n", text):
        return "", 0
    end = re.compile(rf"^{FENCE}[ \t]*(\n|\Z)", re.MULTILINE).search(text, len(FENCE))
    if end is None:
        return "", 0
    return text[len(FENCE) : end.start()], end.end()


def refuse_open_front_matter(text: str, path: Path) -> None:
    """WatchError for settings that never end, and would swallow the conversation."""
    if re.match(rf"{FENCE}[ \t]*\n[ \t]*[a-z_]+:", text) and not front_matter(text)[1]:
        raise WatchError(f"{path}, line 1: the settings on top have no end; put a line of three dashes below them")


def delimiter(given: str) -> str:
    """What --delim means: \\n and \\t spelled out are taken as such, and it stands on lines of its own."""
    text = re.sub(r"\\([nt\\])", lambda found: {"n": "\n", "t": "\t", "\\": "\\"}[found[1]], given)
    if not text.strip("\n"):
        return text or "\n"
    return ("" if text.startswith("\n") else "\n") + text + ("" if text.endswith("\n") else "\n")


History = tuple[tuple[str, str], ...]  # (question, answer) in turn, the last answer ""


@dataclass(frozen=True)
class InterruptedReply:
    """A reply that a save put an end to: what it was an answer to, and what had been said of it."""

    history: History
    said: str


@dataclass(frozen=True)
class Task:
    """A reply that is wanted below `base`, which the file's text begins with; what follows `base` in the file is taken away first."""

    base: str
    lead: str  # written with the first words
    history: History
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
            return Task(text, self.layout.cue(text, self.layout.persona), _history(turns))
        history = _history(turns[:-1])
        if interrupted is None or not history:
            return None
        if history != interrupted.history and interrupted.said.startswith(last.text):
            above = text[: last.start]  # our own words stand below a question that is another now
            return Task(above, self.layout.cue(above, self.layout.persona), history)
        # words that were written, or left standing: the reply begins with them
        return Task(text.rstrip(), "", history, last.text)

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
        fault = f"its last turn is {self.layout.persona}'s" if turns else "it has no turns"
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


def _history(turns: Sequence[WrittenTurn]) -> History:
    spoken = [turn for turn in turns if turn.text]
    return tuple((question, answer) for _, question, answer in paired(spoken)) if spoken else ()


def _between_blank_lines(words: str) -> str:
    """Words as they were written, but for blank lines around them and the space after the cue."""
    start, end = len(words) - len(words.lstrip()), len(words.rstrip())
    if start > end:
        return ""
    first = words.rfind("\n", 0, start) + 1
    last = words.find("\n", end)
    return words[first : last if last >= 0 else None].removeprefix("" if first else " ")
