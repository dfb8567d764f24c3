"""A conversation to learn from, in whatever format its file has it: chat, alpaca, sharegpt, prompt and completion, preference, text."""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from townhall.data.errors import DataError
from townhall.message import Role

MAX_BYTES, MAX_LINE, MAX_CHATS = 1 << 30, 16 << 20, 1_000_000
ROLES = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant", "bot": "assistant", "model": "assistant"}


@dataclass(frozen=True)
class Said:
    """A turn of such a conversation."""

    role: Role
    text: str


@dataclass(frozen=True)
class TrainingChat:
    """Turns that begin with the user's and end with a reply, or a `text` to learn as it stands."""

    turns: tuple[Said, ...] = ()
    system: str = ""
    text: str = ""
    rejected: str = ""  # another last reply, which was not wanted
    source: str = ""  # what it came from: conversations of one source stay on one side of a split

    @property
    def replies(self) -> tuple[str, ...]:
        return tuple(turn.text for turn in self.turns if turn.role == "assistant")

    @property
    def words(self) -> str:
        """All that is said in it."""
        return self.text or "\n".join(turn.text for turn in self.turns)


def of_turns(turns: Iterable[Said], **rest: str) -> TrainingChat | None:
    """As it can be learnt: one speaker after the other, from the first question to the last reply; None where there is no such."""
    kept: list[Said] = []
    for turn in turns:
        if kept and kept[-1].role == turn.role:
            kept[-1] = replace(turn, text=f"{kept[-1].text}\n\n{turn.text}")
        elif kept or turn.role == "user":
            kept.append(turn)
    while kept and kept[-1].role == "user":
        kept.pop()
    return TrainingChat(tuple(kept), **rest) if kept else None


def read_chats(path: Path) -> list[TrainingChat]:
    """All conversations of a .jsonl file, or of a JSON list; each record may have a format of its own. DataError for what is none."""
    found = []
    for where, record in _records(path):
        if not isinstance(record, dict):
            raise DataError(f"{where} is {type(record).__name__}, no record; each line is a JSON object, as docs/training.md shows")
        for kind, (fields, parse) in READERS.items():
            if all(field in record for field in fields):
                try:
                    chat = parse(record)
                except (KeyError, TypeError, ValueError, AttributeError) as error:
                    raise DataError(f"{where} has a broken {kind} record ({error}); correct it or take it out") from None
                break
        else:
            raise DataError(
                f"{where} has the keys {', '.join(map(repr, list(record)[:6]))}, of which no format is made; "
                "it takes messages, conversations, instruction and output, prompt and completion, or text"
            )
        if chat is None:
            raise DataError(f"{where} holds no reply to learn; take it out")
        found.append(chat if chat.source else replace(chat, source=where))
        if len(found) > MAX_CHATS:
            raise DataError(f"{path} holds more than {MAX_CHATS:,} conversations; split it")
    return found


def write_chats(chats: Sequence[TrainingChat], path: Path, kind: str = "chat") -> int:
    """One JSON object a line, whole or not at all; -> how many. DataError for what a format cannot say."""
    lines = []
    for chat in chats:
        for record in WRITERS[kind](chat):
            lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text("".join(lines), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}; choose another place") from None
    finally:
        part.unlink(missing_ok=True)
    return len(lines)


def _records(path: Path) -> Iterator[tuple[str, Any]]:
    """(place, record) of each."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path} is larger than {MAX_BYTES >> 30} GB; split it")
        with path.open("rb") as file:
            head = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
            file.seek(0)
            if head.startswith(b"["):
                listed = _json(file.read().decode("utf-8-sig"), str(path))
                if not isinstance(listed, list):
                    raise DataError(f"{path} is no list of conversations; write one JSON object a line")
                yield from ((f"{path}, record {at}", record) for at, record in enumerate(listed, 1))
                return
            number = 0
            while line := file.readline(MAX_LINE + 1):
                number += 1
                if len(line) > MAX_LINE:
                    raise DataError(f"{path}, line {number} is longer than {MAX_LINE >> 20} MB; no conversation is that long")
                text = line.decode("utf-8-sig").strip()
                if text:
                    yield f"{path}, line {number}", _json(text, f"{path}, line {number}")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}; check the path") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is not text in UTF-8; save it as UTF-8") from None


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is no JSON ({str(error)[:80]}); write one JSON object a line") from None


def _text(value: Any) -> str:
    """A message's words: a text, or its parts of text."""
    if isinstance(value, list):
        if any(not isinstance(part, dict) or part.get("type") != "text" for part in value):
            raise ValueError("a message has parts that are no text")
        return "".join(_text(part["text"]) for part in value)
    if not isinstance(value, str):
        raise ValueError(f"{str(value)[:40]!r} is no text")
    return value.replace("\0", "\N{SYMBOL FOR NULL}")


def _said(messages: Any, role: str, content: str) -> tuple[str, list[Said]]:
    """System message and turns of a list of messages under these keys."""
    system, turns = [], []
    for message in messages:
        who, text = str(message[role]), _text(message[content])
        if who in ("system", "developer"):
            system.append(text)
        elif who in ROLES:
            turns.append(Said("user" if ROLES[who] == "user" else "assistant", text))
        else:
            raise ValueError(f"a message of {who[:40]!r}, where only system, user and assistant can be learnt")
    return "\n\n".join(system), turns


def _chat(record: Mapping[str, Any]) -> TrainingChat | None:
    system, turns = _said(record["messages"], "role", "content")
    return of_turns(turns, system=system, source=str(record.get("source", "")))


def _sharegpt(record: Mapping[str, Any]) -> TrainingChat | None:
    system, turns = _said(record["conversations"], "from", "value")
    return of_turns(turns, system=system or _text(record.get("system", "")), source=str(record.get("id", "")))


def _alpaca(record: Mapping[str, Any]) -> TrainingChat | None:
    question = "\n\n".join(filter(None, (_text(record["instruction"]), _text(record.get("input") or ""))))
    before = [Said("user" if at % 2 == 0 else "assistant", _text(x)) for pair in record.get("history") or () for at, x in enumerate(pair)]
    return of_turns([*before, Said("user", question), Said("assistant", _text(record["output"]))], system=_text(record.get("system") or ""))


def _preference(record: Mapping[str, Any]) -> TrainingChat | None:
    """As trl has it: texts, or lists of messages."""

    def turns(value: Any, role: Role) -> tuple[str, list[Said]]:
        return _said(value, "role", "content") if isinstance(value, list) else ("", [Said(role, _text(value))])

    (system, before), (_, chosen), (_, rejected) = (
        turns(record["prompt"], "user"),
        turns(record["chosen"], "assistant"),
        turns(record["rejected"], "assistant"),
    )
    return of_turns([*before, *chosen], system=system, rejected=rejected[-1].text, source=str(record.get("source", "")))


def _completion(record: Mapping[str, Any]) -> TrainingChat | None:
    return of_turns([Said("user", _text(record["prompt"])), Said("assistant", _text(record["completion"]))])


def _plain(record: Mapping[str, Any]) -> TrainingChat | None:
    return TrainingChat(text=_text(record["text"])) if record["text"] else None


Reader = Callable[[Mapping[str, Any]], TrainingChat | None]
# the first whose keys are all there reads a record
READERS: dict[str, tuple[tuple[str, ...], Reader]] = {
    "chat": (("messages",), _chat),
    "sharegpt": (("conversations",), _sharegpt),
    "alpaca": (("instruction", "output"), _alpaca),
    "preference": (("prompt", "chosen", "rejected"), _preference),
    "completion": (("prompt", "completion"), _completion),
    "text": (("text",), _plain),
}


def _messages(chat: TrainingChat, role: str, content: str, names: Mapping[str, str]) -> list[dict[str, str]]:
    system = [{role: names["system"], content: chat.system}] if chat.system else []
    return system + [{role: names[turn.role], content: turn.text} for turn in chat.turns]


OURS = {"system": "system", "user": "user", "assistant": "assistant"}


def _no_text(chat: TrainingChat, kind: str) -> None:
    if chat.text:
        raise DataError(f"{chat.source} is a plain text, which {kind} cannot hold; take it out or write --to text")


def _as_chat(chat: TrainingChat) -> Iterator[dict[str, Any]]:
    yield {"text": chat.text} if chat.text else {"messages": _messages(chat, "role", "content", OURS)}


def _as_sharegpt(chat: TrainingChat) -> Iterator[dict[str, Any]]:
    _no_text(chat, "sharegpt")
    yield {"conversations": _messages(chat, "from", "value", {"system": "system", "user": "human", "assistant": "gpt"})}


def _as_alpaca(chat: TrainingChat) -> Iterator[dict[str, Any]]:
    _no_text(chat, "alpaca")
    before = [[question.text, reply.text] for question, reply in zip(chat.turns[:-2:2], chat.turns[1:-2:2], strict=True)]
    record = {"instruction": chat.turns[-2].text, "input": "", "output": chat.turns[-1].text}
    yield record | ({"history": before} if before else {}) | ({"system": chat.system} if chat.system else {})


def _as_completion(chat: TrainingChat) -> Iterator[dict[str, Any]]:
    """One record a reply: what came before is not kept, so only conversations of one exchange lose nothing."""
    _no_text(chat, "completion")
    for question, reply in zip(chat.turns[::2], chat.turns[1::2], strict=True):
        yield {"prompt": question.text, "completion": reply.text}


def _as_preference(chat: TrainingChat) -> Iterator[dict[str, Any]]:
    if chat.rejected:
        *before, chosen = _messages(chat, "role", "content", OURS)
        yield {"prompt": before, "chosen": [chosen], "rejected": [{"role": "assistant", "content": chat.rejected}]}


def _as_text(chat: TrainingChat) -> Iterator[dict[str, Any]]:
    if not chat.text:
        raise DataError(f"{chat.source} is a conversation, which text cannot hold; write --to chat")
    yield {"text": chat.text}


WRITERS: dict[str, Callable[[TrainingChat], Iterator[dict[str, Any]]]] = {
    "chat": _as_chat,
    "sharegpt": _as_sharegpt,
    "alpaca": _as_alpaca,
    "completion": _as_completion,
    "preference": _as_preference,
    "text": _as_text,
}


def normal(text: str) -> str:
    """Words alone, in small letters: what two texts that say the same have in common."""
    return " ".join(re.findall(r"\w+", text.lower()))
