"""What is counted in replies: who begins by saying who it is, what is said again, markers, words put into the user's mouth."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.persona_prompts import KNOWN, TWENTY

GRAM = 5  # words
SAME = 0.5  # share of five-word sequences above which a reply says again what another one said
_WORD = re.compile(r"\w+(?:['’]\w+)*")
_MARKER = re.compile(r"<\|?/?[a-z_]*\|?>|\[/?INST\]|###|\{\{|\}\}|im_start|im_end")
_USER = re.compile(r"(?:^|\n)\s*(?:user|human|you|question)\s*:", re.IGNORECASE)
_GREETING = r"(?:(?:hi|hello|hey|yo|well|oh|greetings|sorry|welcome)\b[^.!?\n]{0,30}[.!?,]?\s*)?"
_ASKED = re.compile(r"\b(?:who are you|your name|what are you|about yourself|introduce yourself)\b", re.IGNORECASE)


@dataclass(frozen=True)
class SaidReply:
    """A reply in a chat: what it answers, and how it ended."""

    persona: str
    chat: int
    turn: int  # from 0
    question: str
    text: str
    tokens: int = 0
    finish: str = "stop"

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def grams(text: str) -> list[tuple[str, ...]]:
    """All sequences of five words, in lower case; of fewer words there are none."""
    words = _WORD.findall(text.lower())
    return [tuple(words[at : at + GRAM]) for at in range(len(words) - GRAM + 1)]


def says_again(text: str, earlier: Iterable[str]) -> bool:
    """Do more than half of its five-word sequences stand in one earlier reply? One of fewer words does where it is the same text."""
    own, words = set(grams(text)), _WORD.findall(text.lower())
    if not own:
        return bool(words) and any(words == _WORD.findall(other.lower()) for other in earlier)
    return any(len(own & set(grams(other))) > SAME * len(own) for other in earlier)


def goes_round(text: str) -> bool:
    """Do more than half of its five-word sequences stand in itself before?"""
    own = grams(text)
    return bool(own) and len(set(own)) < SAME * len(own)


def introduces(text: str, persona: str) -> bool:
    """Does it begin by saying who it is?"""
    who = rf"(?:{persona}|(?:\w+ )?AI|assistant|chatbot|language model|{KNOWN[persona].roles})"
    claim = r"(?:i['’]?m|i am|my name is|my name['’]s|this is|it['’]s|call me|as an?)"
    said = rf"\W*{_GREETING}(?:{claim}\b[^.!?\n]*\b{who}\b|{persona} here\b)"
    return bool(re.match(said, text, re.IGNORECASE))


def count(replies: Sequence[SaidReply]) -> dict[str, Any]:
    """The figures of replies, which stand in the order of their chats."""
    later = [reply for reply in replies if reply.turn and not _ASKED.search(reply.question)]
    again = 0
    said: dict[tuple[str, int], list[str]] = {}
    for reply in replies:
        earlier = said.setdefault((reply.persona, reply.chat), [])
        again += says_again(reply.text, earlier)
        earlier.append(reply.text)
    return {
        "replies": len(replies),
        "tokens": sum(reply.tokens for reply in replies),
        "said again": again,
        "introductions": sum(introduces(reply.text, reply.persona) for reply in later),
        "later replies": len(later),
        "markers": sum(bool(_MARKER.search(reply.text)) for reply in replies),
        "user's turns": sum(bool(_USER.search(reply.text)) for reply in replies),
        "in circles": sum(goes_round(reply.text) for reply in replies),
        "empty": sum(not reply.text.strip() for reply in replies),
        "cut off": sum(reply.finish == "length" for reply in replies),
    }


def answers(replies: Iterable[SaidReply]) -> dict[str, int]:
    """Of answers to the twenty questions: `relevant` hold what a right one holds; `stained` bring in what only the persona's text says.

    That is who the persona is, and what its examples are about: none of the twenty questions asks for either.
    """
    wanted, replies = dict(TWENTY), list(replies)
    return {
        "relevant": sum(bool(re.search(wanted[reply.question], reply.text, re.IGNORECASE | re.DOTALL)) for reply in replies),
        "stained": sum(stained(reply.text, reply.persona) for reply in replies),
    }


def stained(text: str, persona: str) -> bool:
    """Does an answer to one of the twenty questions speak of the persona itself, or of what its examples are about?"""
    return introduces(text, persona) or bool(re.search(rf"\b(?:{KNOWN[persona].roles}|{KNOWN[persona].stains})\b", text, re.IGNORECASE))
