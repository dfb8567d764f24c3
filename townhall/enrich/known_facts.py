"""What a question is helped by: statements of the user's, notes of the memory, sentences of documents; and the form of its answer."""

import re
from collections.abc import Iterable, Sequence

from townhall.enrich.rewrite_guard import plain, stems

MOST_FACTS = 2
LONGEST = 240  # characters of a fact
_OF_ME = re.compile(r"\b(?:i|i'm|me|my|mine|myself|we|us|our|ours)\b", re.IGNORECASE)
_SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")
_SAYS_FORM = re.compile(
    r"\b(?:in (?:one|two|three|a few|\d+) (?:words?|sentences?|lines?)|list|table|step by step|briefly|in detail|json|bullets?)\b",
    re.IGNORECASE,
)
_AMOUNT = "many|much|old|far|tall|long|high|deep|big|heavy|fast|hot|cold|wide|large|often"
_FORMS = (
    (re.compile(r"^\W*(?:in\s+)?(?:when\b|(?:what|which) (?:year|date|day|century)\b)", re.IGNORECASE), "Answer with a date."),
    (re.compile(rf"\bhow (?:{_AMOUNT})\b", re.IGNORECASE), "Answer with a number."),
    (re.compile(r"^\W*(?:who|whom|whose)\b", re.IGNORECASE), "Answer with a name."),
    (re.compile(r"^\W*where\b", re.IGNORECASE), "Answer with a place."),
    (
        re.compile(r"^\W*(?:is|are|am|was|were|do|does|did|can|could|will|would|should|has|have|had)\b", re.IGNORECASE),
        "Answer with yes or no, and say why.",
    ),
)  # fmt: skip


def statements(texts: Iterable[str]) -> list[str]:
    """What people say of themselves: the sentences of their messages that ask nothing and are about them."""
    found = []
    for text in texts:
        for sentence in _SENTENCE.findall(text):
            sentence = sentence.strip()
            if sentence and not sentence.endswith("?") and _OF_ME.search(sentence) and len(sentence) <= LONGEST:
                found.append(sentence)
    return found


def about_me(question: str) -> bool:
    """Does it ask about who asks it?"""
    return bool(_OF_ME.search(question))


def matching(question: str, known: Sequence[str], least: int = 1, most: int = MOST_FACTS) -> list[str]:
    """Of what is `known`, what shares at least so many words with the question and adds some to it; the nearest first, then the newest."""
    asked, found = stems(question), []
    for at, fact in enumerate(known):
        own = stems(fact)
        if len(shared := own & asked) >= least and own - asked:
            found.append((len(shared), at, fact))
    chosen: dict[str, str] = {}
    for _, _, fact in sorted(found, reverse=True):
        chosen.setdefault(plain(fact), fact)
    return list(chosen.values())[:most]


def sentences(passages: Iterable[str]) -> list[str]:
    """Of documents, those that can stand alone."""
    return [one for text in passages for found in _SENTENCE.findall(text) if 20 <= len(one := " ".join(found.split())) <= LONGEST]


def wanted_form(question: str) -> str:
    """What the answer should look like, in a sentence; "" where the question says it or leaves it open."""
    if _SAYS_FORM.search(question):
        return ""
    return next((form for pattern, form in _FORMS if pattern.search(question)), "")
