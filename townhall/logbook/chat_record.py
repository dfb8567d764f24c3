"""A chat's tree with its log: whatever is done to the chat is written as it is done, by terminal and server alike."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from townhall.errors import LogError
from townhall.logbook import log_syntax
from townhall.logbook.chat_tree import ChatTree, Rating, TreeNode
from townhall.logbook.log_reader import Log, read_log
from townhall.logbook.log_syntax import LogTurn, Mark
from townhall.logbook.log_writer import LogWriter


class ChatRecord:
    """`write` takes what is to be appended to the log; the tree has it when that returns.

    What was done is never taken out of the text: it says what came later, and reads as the talk stands now.
    """

    def __init__(self, names: Mapping[str, str], write: Callable[[str], None], tree: ChatTree | None = None):
        """`names` are the speakers' by role: "user", "assistant"."""
        self.names, self.tree, self._write = names, tree or ChatTree(), write

    def say(self, role: str, text: str, facts: Mapping[str, Any]) -> TreeNode:
        """A turn at the end of the path."""
        return self._turn(role, text, {"id": self.tree.next_id, **facts})

    def edit(self, node: TreeNode, text: str) -> None:
        """Other words for a turn; what stands below stays."""
        self._turn(node.turn.role, text, {"edits": node.id, "at": now()}, node.turn.name)

    def carry_on(self, node: TreeNode, text: str, facts: Mapping[str, Any]) -> None:
        """A reply was carried on: it is `text` now, and `facts` are of the whole."""
        self._turn(node.turn.role, text, {"continues": node.id, **facts}, node.turn.name)

    def undo(self, exchanges: int = 1) -> None:
        """Take back the path's last exchanges."""
        self._mark("undo", {"turns": exchanges})

    def branch(self, turn: int) -> None:
        """End the path at a turn; what is said next stands beside what was below it. 0: at the beginning."""
        if self.tree.end != turn:
            self._mark("branch", {"turn": turn})

    def choose(self, node: TreeNode) -> None:
        """Lead the path through a turn."""
        self._mark("choose", {"turn": node.id})

    def delete(self, node: TreeNode, below: bool = False) -> None:
        """Take a turn out, and with `below` all that follows it."""
        self._mark("delete", {"turn": node.id, **({"below": True} if below else {})})

    def rate(self, node: TreeNode, rating: Rating | None) -> None:
        """Say whether a reply is a good one; None takes that back."""
        self._mark("rate", {"turn": node.id, "rating": rating})

    def set(self, changes: Mapping[str, Any]) -> None:
        """Change the chat's settings; None takes one away."""
        self._mark("set", changes)

    def use(self, sources: Mapping[str, Any]) -> None:
        """The note of the sources that prompts have from here on (`PromptSources.note`); nothing is written where they are as before."""
        if dict(sources) != self.tree.sources:
            self._mark("sources", sources)

    def rename(self, title: str) -> None:
        """Give the chat a name."""
        self._mark("title", {"title": title})

    def reset(self) -> None:
        """The talk begins anew."""
        self._mark("reset")

    def _turn(self, role: str, text: str, facts: dict[str, Any], name: str = "") -> TreeNode:
        name, kind = name or self.names[role], "user" if role == "user" else "reply"
        text = text.replace("\0", "\N{SYMBOL FOR NULL}")
        self._write(log_syntax.turn(name, text, kind, facts))
        node = self.tree.apply(LogTurn(name, role, text, 0, facts))
        assert node is not None
        return node

    def _mark(self, kind: str, facts: Mapping[str, Any] | None = None) -> None:
        self._write(log_syntax.mark(kind, facts))
        mark: Mark = (kind, dict(facts or {}))
        self.tree.apply(mark)


class ChatFile:
    """A record in a file that others may write to between two operations: it is locked for the time of one, and read again when it changed.

    What a full disk does not take is kept and written with the next operation; `problem` says so meanwhile.
    """

    def __init__(self, path: Path, head: Mapping[str, Any]):
        """`head` is the front matter of a file that is not there yet."""
        self.path, self.problem = path, ""
        self._head = dict(head)
        self._stamp: tuple[int, int] | None = None
        self._writer: LogWriter | None = None
        self._opened = 0
        self._before = ""  # to be written in front of whatever comes first
        self._unsaved = False
        self.log = Log(path, self._head)
        self.record = self._recorded(self.log)
        self.follow()

    @property
    def head(self) -> dict[str, Any]:
        """The front matter."""
        return self.log.head or self._head

    @property
    def saved(self) -> bool:
        """Does it lie on the disk?"""
        return self._stamp is not None

    def current(self) -> Log:
        """The log as it stands now."""
        tree = self.record.tree
        return Log(self.path, self.head, tree.turns(), self.log.damages, tree.taken(), tree.title, self.log.events, tree)

    def follow(self) -> bool:
        """Read the file where another program changed it; was it so? LogError where it cannot be read any more."""
        if self._writer or self._before or (stamp := self._read_stamp()) == self._stamp:
            return False
        if stamp is None:
            raise LogError(f"log {self.path} is not there any more; it was deleted or moved")
        self.log = read_log(self.path)
        self.record, self._stamp = self._recorded(self.log), stamp
        return True

    @contextmanager
    def open(self) -> Iterator[ChatRecord]:
        """Locked for writing, until the last of those that opened it is done.

        What is done to the record before that is written with what comes first. LogError where another program writes to it, or has
        written since it was read.
        """
        if self._writer is None:
            writer = LogWriter(self.path, self._head, self._say)
            if self._read_stamp() != self._stamp:
                writer.close()
                raise LogError(f"log {self.path} was written by another program a moment ago; look at it and do it again")
            self._writer = writer
        self._opened += 1
        try:
            yield self.record
        finally:
            self._opened -= 1
            if not self._opened and not self._unsaved:
                self._writer.close()
                self._writer, self._stamp = None, self._read_stamp()

    def keep(self) -> None:
        """Have it on the disk, though nothing was said yet."""
        if not self.saved:
            with self.open():
                self._write("")

    def _recorded(self, log: Log) -> ChatRecord:
        names = {"user": str(self.head.get("user") or "User"), "assistant": str(self.head.get("persona") or "Assistant")}
        return ChatRecord(names, self._write, log.tree)

    def _write(self, text: str) -> None:
        text, self._before = self._before + text, ""
        if self._writer is None:
            self._before = text
        else:
            self._writer.append(text)

    def _say(self, line: str) -> None:
        """The writer begins to fail, or is over it."""
        self._unsaved = not self._unsaved
        self.problem = line[:1].upper() + line[1:] if self._unsaved else ""

    def _read_stamp(self) -> tuple[int, int] | None:
        try:
            stat = self.path.stat()
        except OSError:
            return None
        return stat.st_size, stat.st_mtime_ns


def now() -> str:
    """As logs have it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def renumbered(path: Sequence[TreeNode], origin: str) -> list[LogTurn]:
    """The turns of a path for a new log to begin with: numbered anew, and said in the log `origin`."""
    found = []
    for number, node in enumerate(path, 1):
        facts = {key: value for key, value in node.facts.items() if key not in ("receipt", "rating")}
        facts |= {"rating": node.rating} if node.rating else {}
        found.append(replace(node.turn, id=number, facts={**facts, "id": number, "said_in": origin}))
    return found
