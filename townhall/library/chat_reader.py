"""Conversations into blocks, a turn each: Townhall's logs and watched files, and chats of JSON lines, as SillyTavern writes them."""

import json
import re
from pathlib import Path
from typing import Any

from townhall.library.blocks import TextBlock
from townhall.library.errors import UnreadableFile
from townhall.library.text_reader import markdown_blocks

_CUE = re.compile(r"^([^\W\d_][^:\n]{0,39}): ?", re.MULTILINE)
_LOG = re.compile(r"---\ntownhall: \d")


def is_log(text: str) -> bool:
    """Is it a conversation that Townhall kept? Those are Markdown, too."""
    return bool(_LOG.match(text))


def log_blocks(text: str) -> list[TextBlock]:
    """Turns of one of Townhall's logs."""
    from townhall.logbook.log_reader import parse

    log = parse(text.encode(), Path("log"))
    heading = (log.title or f"{log.head.get('persona') or 'Conversation'}, {str(log.head.get('started', ''))[:10]}".strip(" ,"),)
    return [
        TextBlock(f"{turn.name}: {turn.text}", turn.line, turn.line + 1 + turn.text.count("\n"), heading) for turn in log.turns if turn.text
    ]


def chat_blocks(text: str) -> list[TextBlock]:
    """Turns of a file of JSON lines, or of plain text in which a line that begins with "Name:" begins a turn."""
    if text.lstrip().startswith("{"):
        return _json_lines(text)
    cues = list(_CUE.finditer(text))
    if not cues:
        return markdown_blocks(text)
    ends = [*(cue.start() for cue in cues[1:]), len(text)]
    blocks, line, at = [], 1, 0
    for cue, end in zip(cues, ends):
        line, at = line + text.count("\n", at, cue.start()), cue.start()
        if text[cue.end() : end].strip():
            turn = text[cue.start() : end].rstrip()
            blocks.append(TextBlock(turn, line, line + turn.count("\n")))
    return blocks


def _json_lines(text: str) -> list[TextBlock]:
    blocks = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            raise UnreadableFile(f"line {number} is not JSON") from None
        blocks += [TextBlock(turn, number, number) for turn in _turns(entry)]
    return blocks


def _turns(entry: Any) -> list[str]:
    """What an entry says: {"name", "mes"}, {"role", "content"}, or {"messages": [those]}."""
    if not isinstance(entry, dict):
        return []
    if isinstance(entry.get("messages"), list):
        return [turn for message in entry["messages"] for turn in _turns(message)]
    who, words = entry.get("name", entry.get("role")), entry.get("mes", entry.get("content", entry.get("text")))
    return (
        [f"{who}: {words.strip()}" if isinstance(who, str) and who else words.strip()] if isinstance(words, str) and words.strip() else []
    )
