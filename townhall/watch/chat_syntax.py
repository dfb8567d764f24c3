"""How a conversation is written as plain text, by people and by Townhall; docs/watch.md tells it to people.

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
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from townhall.formats.prompt_pieces import PromptTurn
from townhall.watch.lock import WatchError

DELIM = "\n\n"
FENCE = "---"


@dataclass(frozen=True)
class WrittenTurn(PromptTurn):
    """A turn and where it begins: `start` is the index of its cue in the file's text."""

    start: int


@dataclass(frozen=True)
class ChatSyntax:
    """Two speakers' names, and what stands between turns: it begins and ends with a line's end."""

    user: str
    persona: str
    delim: str = DELIM

    def turns(self, text: str) -> list[WrittenTurn]:
        """Who said what, in order; `text` has "\\n" for line ends. Words are stripped, of the delimiter too."""
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
        words, mark = words.strip(), self.delim.strip()
        if mark and (words == mark or words.endswith(f"\n{mark}")):
            words = words.removesuffix(mark).rstrip()
        return WrittenTurn("user" if cue[1] == self.user else "assistant", words, cue.start())

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
