"""HTML and plain values that the page shows of a chat; every foreign word is escaped."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any
from urllib.parse import quote

from townhall.logbook.log_syntax import LogTurn
from townhall.web.client import ModelChoice
from townhall.web.live_chat import LiveChat
from townhall.web.safe_markdown import spoken, written

Message = dict[str, Any]
MOST_SHOWN = 60  # exchanges: browsers take seconds for hundreds


@dataclass(frozen=True)
class WindowShare:
    """A part of the window, in tokens."""

    name: str
    tokens: int
    says: str


def conversation(chat: LiveChat | None, served_model: ModelChoice) -> list[Message]:
    """The greeting, every turn, the reply that is being written; what was forgotten stands below the answer it was forgotten for."""
    said: list[Message] = []
    if served_model.greeting:
        said.append(_message("assistant", spoken(served_model.greeting)))
    if chat is None:
        return said
    exchanges = chat.exchanges()
    earlier, shown = exchanges[:-MOST_SHOWN], exchanges[-MOST_SHOWN:]
    forgotten = 0
    for _, answer in earlier:
        forgotten = _notes(answer, forgotten)[1] if answer else forgotten
    if earlier:
        said = [_message("assistant", f'<span class="note">{len(earlier)} earlier exchanges stand in the log; Export has them all.</span>')]
    for question, answer in shown:
        said.append(_message("user", written(question.text)))
        if answer:
            note, forgotten = _notes(answer, forgotten)
            said.append(_message("assistant", spoken(answer.text) + note))
    if chat.live:
        said.append(_message("assistant", spoken(chat.live.text) + ("" if chat.live.text else '<span class="waiting">writing …</span>')))
    return said


def receipt(info: dict[str, Any], before: int) -> str:
    """One sentence about what the model does not see any more; `before`: messages that an earlier one mentioned."""
    dropped, tokens = len(info.get("dropped") or ()), int(info.get("dropped_tokens") or 0)
    if not tokens or dropped <= before:
        return ""
    more = f"{dropped - before} more messages" if before else f"the {dropped} oldest messages"
    return (
        f"Forgot {more} to make room: {tokens} tokens of this chat have left the window of {info.get('window')} ({info.get('strategy')})."
    )


def shares(info: dict[str, Any], completion: int) -> list[WindowShare]:
    """How the window is filled after a reply; the parts add up to the window."""
    window, pinned = int(info.get("window") or 0), int(info.get("pinned_tokens") or 0)
    memory, reserve = int(info.get("memory_tokens") or 0), int(info.get("reserve_tokens") or 0)
    recent = max(0, int(info.get("prompt_tokens") or 0) - pinned - memory + completion)
    free = max(0, window - pinned - memory - recent - reserve)
    parts = [
        WindowShare("pinned", pinned, "the character, always in view"),
        WindowShare("memory", memory, "a memory of what was forgotten"),
        WindowShare("recent", recent, "the talk as the model sees it"),
        WindowShare("reserve", max(0, window - pinned - memory - recent - free), "kept for the next answer"),
        WindowShare("free", free, "free"),
    ]
    return parts


def bar(chat: LiveChat | None) -> str:
    """The context window as a meter and its legend."""
    answers = [answer for _, answer in (chat.exchanges() if chat else ()) if answer and (answer.facts or {}).get("receipt")]
    facts = answers[-1].facts or {} if answers else {}
    info = facts.get("receipt") or {}
    parts = shares(info, int(facts.get("completion_tokens") or 0))
    window = int(info.get("window") or 0)
    if not window:
        return '<div class="window"><div class="track" role="meter" aria-label="Context window" aria-valuemin="0" aria-valuemax="1" aria-valuenow="0" aria-valuetext="nothing said yet"></div><span class="legend">The context window fills as you talk.</span></div>'  # noqa: E501
    used = window - parts[-1].tokens
    spans = "".join(f'<span class="{part.name}" style="width:{100 * part.tokens / window:.2f}%"></span>' for part in parts[:-1])
    words = ", ".join(f"{part.name} {part.tokens}" for part in parts if part.tokens or part.name != "memory")
    legend = " ".join(
        f'<span class="key" title="{part.says}"><i class="{part.name}"></i>{part.name} <b>{part.tokens}</b></span>'
        for part in parts
        if part.tokens or part.name != "memory"
    )
    return (
        f'<div class="window"><div class="track" role="meter" aria-label="Context window" aria-valuemin="0" aria-valuemax="{window}" '
        f'aria-valuenow="{used}" aria-valuetext="{words} of {window} tokens">{spans}</div><span class="legend">{legend}</span></div>'
    )


def header(served_model: ModelChoice) -> str:
    """Who is being talked to."""
    info = escape(served_model.description or "The model itself, with no character to play.")
    return (
        f'<div class="who"><img src="portraits/{quote(served_model.id, safe="")}.svg" alt="" width="56" height="56">'
        f'<div><h1>{escape(served_model.name)}</h1><p title="{info}">{info}</p></div></div>'
    )


def served_models(all: Sequence[ModelChoice]) -> str:
    """What the page's own script writes below each name."""
    info = "".join(f'<li data-id="{escape(one.id)}" data-name="{escape(one.name)}">{escape(tagline(one))}</li>' for one in all)
    return f'<ul id="voices" hidden>{info}</ul>'


def tagline(served_model: ModelChoice) -> str:
    """Who that is, without saying the name again."""
    info = " ".join(served_model.description.split()) or "the model itself, with no character to play"
    info = info.removeprefix(f"{served_model.name} is ")
    return info[:1].upper() + info[1:]


def problem(text: str) -> str:
    """A fault, in one sentence; "" hides it."""
    return f'<div class="problem" role="alert"><b aria-hidden="true">!</b> {escape(text)}</div>' if text else ""


def remark(text: str) -> str:
    """Something to know, no fault."""
    return f'<div class="remark" role="status">{escape(text)}</div>'


def exports(id: str) -> str:
    """Links to both files."""
    links = (f'<a href="chats/{quote(id, safe="")}.{form}" download>{name}</a>' for form, name in (("md", "Markdown"), ("json", "JSON")))
    return f'<span class="exports">Save as {" ".join(links)}</span>'


def facts(chat: LiveChat | None, served_model: ModelChoice, taken: tuple[int, int] = (0, 0)) -> str:
    """What the page's own scripts need to know; `taken` as in a `Tab`."""
    saved = chat.id if chat and (chat.live or chat.exchanges()) else ""
    return (
        f'<div id="facts" data-chat="{escape(saved)}" data-persona="{escape(served_model.id)}" data-name="{escape(served_model.name)}" '
        f'data-taken="{taken[0]}" data-units="{taken[1]}"></div>'
    )


def _notes(answer: LogTurn, before: int) -> tuple[str, int]:
    """(what stands below an answer, how many messages are forgotten now)."""
    facts = answer.facts or {}
    info = facts.get("receipt") or {}
    ends = {"length": "Cut off: the answer reached its limit.", "interrupted": "Stopped before its end."}
    lines = [line for line in (ends.get(str(facts.get("finish_reason"))), receipt(info, before)) if line]
    notes = "".join(f'<span class="note">{escape(line)}</span>' for line in lines)
    return (f"\n\n{notes}" if notes else ""), len(info.get("dropped") or ())


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def names(served_models: Sequence[ModelChoice]) -> list[tuple[str, str]]:
    """(what stands in a list, model id)."""
    return [(served_model.name, served_model.id) for served_model in served_models]
