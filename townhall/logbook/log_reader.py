"""A log as it was read: what is whole, what was never finished, what is damaged and stands aside; and its export."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from townhall.errors import LogError
from townhall.logbook.chat_tree import ChatTree
from townhall.logbook.log_syntax import BETWEEN, COMMENT, FENCE, HEADING, REMARK, LogTurn, Mark, unescape

MAX_BYTES = 64 << 20  # years of talk; more is no log
MAX_HEAD = 64 << 10


@dataclass(frozen=True)
class Damage:
    """Lines that are no turn any more; `raw` keeps every byte."""

    line: int
    reason: str
    raw: bytes


@dataclass(frozen=True)
class Log:
    """`head` is empty where the front matter is damaged; `turns` are the path that the talk goes, `taken` what was taken back."""

    path: Path
    head: dict[str, Any]
    turns: list[LogTurn] = field(default_factory=list)
    damages: list[Damage] = field(default_factory=list)
    taken: list[LogTurn] = field(default_factory=list)
    title: str = ""  # given by the user
    events: list[LogTurn | Mark] = field(default_factory=list)  # every turn, and every comment between turns, as they came
    tree: ChatTree = field(default_factory=ChatTree)

    @property
    def id(self) -> str:
        return str(self.head.get("id") or self.path.stem)

    @property
    def sources(self) -> dict[str, Any]:
        """The note of the sources that its last turns were held with."""
        return next((event[1] for event in reversed(self.events) if isinstance(event, tuple) and event[0] == "sources"), {})


def read_log(path: Path) -> Log:
    """Everything that can be read. LogError where the file cannot be opened or is no log at all."""
    try:
        if not path.is_file():
            raise LogError(f"log {path} is not a file; `townhall log list` names the logs that there are")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise LogError(f"log {path} cannot be read: {error.strerror or error}") from error
    if len(data) > MAX_BYTES:
        raise LogError(f"log {path} is larger than {MAX_BYTES >> 20} MB; no conversation is that long")
    return parse(data, path)


def parse(data: bytes, path: Path) -> Log:
    """The log that `data` spells, however torn it is."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    if data[: data.find(b"\n")].endswith(b"\r"):
        data = data.replace(b"\r\n", b"\n")  # an editor of another system saved it
    lines = data.split(b"\n")
    head, damages, start = _head(lines)
    events: list[LogTurn | Mark] = []
    names = {str(head[key]) for key in ("user", "persona") if key in head}
    previous = ""
    for first, block in _blocks(lines, start, names):
        parsed = _turn(block, first, head, previous)
        if isinstance(parsed, Damage):
            damages.append(parsed)
            continue
        turn, strays, marks = parsed
        damages.extend(strays)
        if turn:
            events.append(turn)
            previous = turn.role
        events.extend(marks)
    tree = ChatTree(events)
    return Log(path, head, tree.turns(), damages, tree.taken(), tree.title, events, tree)


def _head(lines: list[bytes]) -> tuple[dict[str, Any], list[Damage], int]:
    """(front matter, what is wrong with it, index of the first line after it)."""
    if lines[0].strip() != FENCE.encode():
        return {}, [Damage(1, "no front matter", b"")] if any(lines) else [], 0
    end = next((n for n, line in enumerate(lines[1:], 1) if line.strip() == FENCE.encode()), None)
    # a fence that was lost must not swallow the turns
    stop = next((n for n, line in enumerate(lines[1:], 1) if line.startswith(b"## ")), len(lines))
    if end is None or end > stop:
        return {}, [Damage(1, "front matter without an end", b"\n".join(lines[:stop]))], stop
    raw = b"\n".join(lines[1:end])
    try:
        head = yaml.safe_load(raw.decode()) if len(raw) <= MAX_HEAD else None
    except (yaml.YAMLError, ValueError, RecursionError):
        head = None
    if not isinstance(head, dict) or not _flat(head):
        return {}, [Damage(1, "front matter that is not readable", raw)], end + 1
    return head, [], end + 1


def _flat(head: dict[Any, Any]) -> bool:
    """Scalars, and one mapping of scalars and lists of them: nothing that grows when it is printed."""
    scalar = (int, float, bool, type(None))
    inner = head.get("settings") or {}
    values = [value for key, value in head.items() if key != "settings"]
    if not isinstance(inner, dict):
        return False
    for value in inner.values():
        values += value if isinstance(value, list) else [value]
    return all(isinstance(value, scalar) or _is_text(value) for value in values) and all(map(_is_text, (*head, *inner)))


def _is_text(value: Any) -> bool:
    """YAML can spell halves of a surrogate pair, which nothing can store."""
    try:
        return isinstance(value, str) and bool(value.encode()) or value == ""
    except UnicodeEncodeError:
        return False


def _blocks(lines: list[bytes], start: int, names: set[str]) -> Iterator[tuple[int, list[bytes]]]:
    """(index of its first line, lines) of every turn, and of what stands before the first."""
    block: list[bytes] = []
    first = start
    for at in range(start, len(lines)):
        heading = HEADING.fullmatch(lines[at].decode(errors="replace"))
        if heading and (not names or heading[1] in names):
            if any(line.strip() for line in block):
                yield first, block
            block, first = [], at
        block.append(lines[at])
    if any(line.strip() for line in block):
        yield first, block


def _turn(block: list[bytes], first: int, head: dict[str, Any], previous: str) -> tuple[LogTurn | None, list[Damage], list[Mark]] | Damage:
    """(turn, what stood after its end, the comments that follow it), or the damage that the whole block is."""
    raw = b"\n".join(block)
    try:
        lines = raw.decode().split("\n")
    except UnicodeDecodeError as error:
        return Damage(first + 1 + raw[: error.start].count(b"\n"), "bytes that are not UTF-8", raw)
    if "\0" in raw.decode():
        return Damage(first + 1, "zero bytes", raw)
    heading = HEADING.fullmatch(lines[0])
    text: list[str] = []
    strays: list[Damage] = []
    kind, facts = "", None
    marks: list[Mark] = []
    for at, line in enumerate(lines[1:] if heading else lines, first + 1 + bool(heading)):
        if found := COMMENT.fullmatch(line):
            if found[1] in BETWEEN:
                marks.append((found[1], _facts(found[2]) or {}))
            elif kind or not heading:
                strays.append(Damage(at, "a comment without a turn", line.encode()))
            else:
                kind, facts = found[1], _facts(found[2])
                if facts is None:
                    strays.append(Damage(at, "a comment that is not readable", line.encode()))
        elif REMARK.fullmatch(line):
            continue
        elif kind or not heading:
            if line.strip():
                strays.append(Damage(at, "text that belongs to no turn", line.encode()))
        else:
            text.append(line)
    if not heading:
        return None, strays, marks
    if not kind:
        if text and text[-1].startswith("<!--"):
            text.pop()  # a comment that was cut off in its middle
        while text and not text[-1].strip():
            text.pop()
    role = _role(heading[1], kind, head, previous)
    return LogTurn(heading[1], role, unescape("\n".join(text)), first + 1, facts), strays, marks


def _facts(written: str | None) -> dict[str, Any] | None:
    try:
        facts = json.loads(written or "{}")
    except (ValueError, RecursionError):
        return None
    return facts if isinstance(facts, dict) else None


def _role(name: str, kind: str, head: dict[str, Any], previous: str) -> str:
    """Who speaks: by the comment, by the name, else by turns."""
    if kind:
        return "user" if kind == "user" else "assistant"
    if head:
        return "user" if name == head.get("user") else "assistant"
    return "assistant" if previous == "user" else "user"


def as_json(log: Log) -> dict[str, Any]:
    """Plain values: everything that is in the log, the turns that were taken back apart from the talk."""
    return {
        "id": log.id,
        "path": str(log.path),
        "title": log.title,
        "head": log.head,
        "turns": [asdict(turn) for turn in log.turns],
        "taken": [asdict(turn) for turn in log.taken],
        "tree": [asdict(node.turn) | {"parent": node.parent, "edited": node.edited, "rating": node.rating} for node in log.tree],
        "settings": log.tree.settings,
        "damages": [{"line": damage.line, "reason": damage.reason, "raw": damage.raw.decode(errors="replace")} for damage in log.damages],
    }


def as_markdown(log: Log) -> str:
    """The talk alone, to be read."""
    title = f"talk with {log.head.get('persona') or 'somebody'}"
    title = f"# {printable(log.title)}, a {title}" if log.title else f"# A {title}"
    if started := log.head.get("started"):
        title += f", {started}"
    parts = [title]
    for turn in log.turns:
        if turn.after_reset:
            parts.append("* * *")
        parts.append(f"**{turn.name}:** {printable(turn.text)}")
    return "\n\n".join(parts) + "\n"


def printable(text: str) -> str:
    """Without characters that would speak to the terminal instead of the reader."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
