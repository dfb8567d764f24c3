"""A log for other programs and for other people."""

from dataclasses import asdict
from typing import Any

from townhall.logbook.log_reader import Log


def as_json(log: Log) -> dict[str, Any]:
    """Plain values: everything that is in the log, the turns that were taken back apart from the talk."""
    return {
        "id": log.id,
        "path": str(log.path),
        "title": log.title,
        "head": log.head,
        "turns": [asdict(turn) for turn in log.turns],
        "taken": [asdict(turn) for turn in log.taken],
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
