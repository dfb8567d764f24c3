"""Whether a rewritten question may be offered: it keeps what the own one says, says something more, and invents nothing."""

import re
from collections.abc import Sequence

from townhall.enrich.references import pointing

MOST_WORDS = 60  # of a question that can be read at a glance
_QUOTED = re.compile(r"`[^`]+`|\"[^\"]+\"|“[^”]+”|«[^»]+»")
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_NAME = re.compile(r"(?<!^)(?<![.!?]\s)\b[A-ZÄÖÜÉ][\w’'-]+")
_SMALL = frozenset(
    (
        "a about all also am an and another any are as at be been being both but by can could did do does done else for from get give "
        "go had has have he her hers him his how i if in into is it its just know let like make many may me mean might mine more most "
        "much must my no not of off on one ones only or other our out over own please same say shall she should so some such tell than "
        "that the their them then there these they this those to too under up us very want was we well were what when where which "
        "while who whom whose why will with would yes you your yours first second third fourth fifth last former latter really exactly "
    ).split()
)


def fault_of(own: str, offered: str, said: Sequence[str]) -> str:
    """Why `offered` may not stand for the question `own`, asked after the messages `said`; "" where it may."""
    if not re.search(r"\w", offered):
        return "the local model wrote nothing"
    if len(offered.split()) > MOST_WORDS or "\n" in offered.strip():
        return "what the local model wrote is no single question"
    for kept in (*_QUOTED.findall(own), *_NUMBER.findall(own), *_NAME.findall(own)):
        if kept.casefold() not in offered.casefold():
            return f"the local model lost {kept!r}"
    mine, theirs = _by_stem(own), _by_stem(offered)
    if lost := [word for stem, word in mine.items() if stem not in theirs]:
        return f"the local model lost {lost[0]!r}"
    known = set(mine).union(*map(stems, said))
    if invented := [word for stem, word in theirs.items() if stem not in known]:
        return f"the local model brought in {invented[0]!r}, which was not said"
    if _NUMBER.findall(offered) and set(_NUMBER.findall(offered)) - set(_NUMBER.findall(" ".join((own, *said)))):
        return "the local model brought in a number that was not said"
    if not theirs.keys() - mine:
        return "the local model resolved nothing"
    if plain(offered) in map(plain, said):
        return "the local model asked again what was asked before"
    if left := pointing(offered, inside=False):
        return f"{left[0]!r} still points at what was said before"
    return ""


def stems(text: str) -> set[str]:
    """The words that say what it is about, by their beginnings, so that a plural is the same word."""
    return set(_by_stem(text))


def _by_stem(text: str) -> dict[str, str]:
    words = re.findall(r"[^\W_]+(?:['’][^\W_]+)?", text.casefold())
    return {stem(word): word for word in words if word not in _SMALL and len(word) > 1}


def stem(word: str) -> str:
    """The beginning of a word: enough for a plural, a past, a participle to be the same."""
    word = re.sub(r"['’]s?$", "", word)
    word = word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
    return word if word[0].isdigit() or len(word) < 5 else word[: min(5, len(word) - 1)]


def plain(text: str) -> str:
    """Words alone, to be compared."""
    return " ".join(re.findall(r"\w+", text.casefold()))
