"""How a log is spelled: front matter, then turns under `## name`, each closed by a comment with its facts.

    ---
    townhall: 1
    id: 20261122-021500-3fa9c1
    ...
    ---

    ## User
    How far is the moon?
    <!-- user {"at": "2026-11-22T02:15:03Z"} -->

    ## Stacy
    About 384,000 km.
    <!-- reply {"finish_reason": "stop", "seed": 7, "tokens": [...], ...} -->

A turn is whole when its comment stands below it. A turn that a person writes needs none. Some comments stand by themselves:
`<!-- reset -->` (the talk begins anew), `<!-- undo {"turns": 1} -->` (so many exchanges above are taken back, and stay in the file),
`<!-- resume -->` (a program took the talk up here, and gave the model all that stands above) and `<!-- title {"title": "…"} -->` (what the
log is called; the last one counts). A turn whose comment has `said_in` was said in another log, and is there to be gone on with.

A talk may be a tree (`chat_tree.py`). Turns have numbers: `"id"` in the comment, or where there is none, the next that is free. A turn
follows the last one of the path that the talk goes, and these comments change that path:
`<!-- branch {"turn": 3} -->`: the talk goes on below turn 3 (0: from its beginning); a reply written then is a swipe beside those before;
`<!-- choose {"turn": 5} -->`: the path leads through turn 5, and from there to where it went last;
`<!-- delete {"turn": 4} -->`: turn 4 is taken out, what follows it moves up; with `"below": true` all that follows it goes, too.
`<!-- set {"system": "…", "tags": ["…"]} -->` has settings of the chat, the last value of a key counts and null takes it away.
`<!-- sources {"beside": 160, "head": [...]} -->` has what sources put into the pinned head from here on, and the tokens kept free for what
they add to a turn, which stands in each reply as `inserted`.
A turn whose comment has `"edits": 4` or `"continues": 4` is what turn 4 reads now.
`<!-- rate {"turn": 4, "rating": "good"} -->` rates the reply 4 good or bad; the last one counts, and null takes it back. It is of the words
that the reply has then: once it is edited or carried on, it has no rating. A turn with `said_in` has the `"rating"` that it had there.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

VERSION = 1
FENCE = "---"
HEADING = re.compile(r"## (\S(?:.*\S)?)\s*")
BETWEEN = ("reset", "undo", "resume", "title", "branch", "choose", "delete", "set", "sources", "rate")
COMMENT = re.compile(rf"<!-- (user|reply|{'|'.join(BETWEEN)})(?: (\{{.*\}}))? -->\s*")
REMARK = re.compile(r"<!--.*-->\s*")
_ESCAPED = re.compile(r"^(\\*)(?=## |<!--)", re.MULTILINE)
_UNESCAPED = re.compile(r"^\\(?=\\*(?:## |<!--))", re.MULTILINE)

Mark = tuple[str, dict[str, Any]]  # a comment between turns, and what it says


@dataclass(frozen=True)
class LogTurn:
    """One turn. `facts` are what its comment says; None where it has none: a person wrote it, or the program ended in it."""

    name: str
    role: str  # "user" or "assistant"
    text: str
    line: int  # of its heading, from 1
    facts: dict[str, Any] | None = None
    after_reset: bool = False  # the conversation began anew before this turn
    id: int = 0  # its number in the chat's tree


def front_matter(head: Mapping[str, Any]) -> str:
    """The beginning of a log."""
    text: str = yaml.safe_dump({"townhall": VERSION, **head}, sort_keys=False, allow_unicode=True, width=1000)
    return f"{FENCE}\n{text}{FENCE}\n"


def turn(name: str, text: str, kind: str, facts: Mapping[str, Any]) -> str:
    """One turn, whole, to be appended to a log."""
    body = escape(text.replace("\0", "\N{SYMBOL FOR NULL}"))
    return f"\n## {name}\n{body}{chr(10) if text else ''}{comment(kind, facts)}\n"


def comment(kind: str, facts: Mapping[str, Any] | None = None) -> str:
    """A line that says something about the turn above it."""
    # "-->" must not occur in it, whatever a path or a device is called
    written = " " + json.dumps(facts, ensure_ascii=False).replace(">", "\\u003e") if facts else ""
    return f"<!-- {kind}{written} -->"


def escape(text: str) -> str:
    """Words that look like a heading or a comment get a backslash, which `unescape` takes away."""
    return _ESCAPED.sub(r"\1\\", text)


def unescape(text: str) -> str:
    """The words as they were said."""
    return _UNESCAPED.sub("", text)


def mark(kind: str, facts: Mapping[str, Any] | None = None) -> str:
    """A comment between turns, to be appended to a log."""
    return comment(kind, facts) + "\n"
