r"""Keys of lorebooks: words that a text must hold, or a JavaScript regular expression between slashes, which may take only so long.

A plain key is looked for as SillyTavern does: anywhere in the text, or with whole words, if it is one word, between characters that are
not of a word. Regular expressions run in the `regex` package, because it can be stopped by the clock. They come from strangers, so only
JavaScript's own syntax is let through, and no repetition of repetitions that would fill the memory before any clock is asked.
"""

import re
import time
from dataclasses import dataclass, field
from typing import Any

MAX_PATTERN = 500  # characters
MAX_COUNT = 5_000  # characters of a pattern whose counted repetitions are written out
MAX_GROUPS = 32  # in one another
KEY_SECONDS = 0.05  # for one regular expression over one text
SCAN_SECONDS = 0.4  # for all of them in one scan; what is left over then matches nothing
_SLASHED = re.compile(r"/(.+)/([a-z]*)", re.DOTALL)
_OPEN_SLASH = re.compile(r"(?<!\\)(?:\\\\)*/")
_TOKEN = re.compile(
    r"""\\(?:[dDwWsSbBnrtvf0/^$.*+?()\[\]{}|\-\\,;:'"!#%&=@`~<>_ ]|x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|[pP]\{[\w=]{1,40}\}|[1-9]|k<\w{1,40}>)
    |(?P<open>\((?:\?(?:[:=!]|<[=!]|<[A-Za-z_]\w{0,40}>))?(?![?*]))|(?P<close>\))
    |(?P<count>\{(?P<least>\d{1,9})(?:,(?P<most>\d{0,9}))?\})|(?P<class>\[\^?)|[^\\()\[{]""",
    re.VERBOSE | re.DOTALL,
)
_IN_CLASS = re.compile(r"\\.|\[|[^\]\\\[]", re.DOTALL)


class PatternError(ValueError):
    """Why a regular expression is not used."""


@dataclass
class Clock:
    """Time for the regular expressions of one scan, and what is to be said of keys: too slow, or not usable."""

    seconds: float = SCAN_SECONDS
    faults: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PlainKey:
    """`head` and `tail` are three characters each, by which a text finds where the key may begin; "" of a shorter key."""

    shown: str
    text: str
    head: str
    tail: str
    folded: bool  # looked for in any case
    whole: bool  # only as a word

    def found_in(self, text: str, start: int = 0) -> bool:
        """In a text that is folded if the key is; from `start` on."""
        at = text.find(self.text, start)
        while self.whole and at >= 0:
            end = at + len(self.text)
            if not (at and _of_word(text[at - 1])) and not (end < len(text) and _of_word(text[end])):
                return True
            at = text.find(self.text, at + 1)
        return at >= 0


@dataclass(slots=True)
class RegexKey:
    """A key between slashes, compiled when it is first needed."""

    shown: str
    source: str
    flags: str
    _compiled: Any = None

    def found_in(self, text: str, clock: Clock) -> bool:
        """False also for a pattern that is not usable, or that was not done in time: then `clock` says so."""
        if self.shown in clock.faults:
            return False
        if clock.seconds <= 0:
            clock.faults[self.shown] = "was not looked for: the time for regular expressions was up"
            return False
        started = time.thread_time()
        try:
            if self._compiled is None:
                self._compiled = _compiled(self.source, self.flags)
            return self._compiled.search(text, timeout=max(0.001, min(KEY_SECONDS, clock.seconds))) is not None
        except PatternError as error:
            clock.faults[self.shown] = str(error)
        except (TimeoutError, MemoryError):
            clock.faults[self.shown] = f"took longer than {KEY_SECONDS:g} s, and counts as not found"
        finally:
            clock.seconds -= time.thread_time() - started
        return False


Key = PlainKey | RegexKey


def plain_key(key: str, case_sensitive: bool, whole_words: bool) -> PlainKey:
    """Of a key that is not empty; several words are found within others, as in SillyTavern."""
    text = key if case_sensitive else key.casefold()
    head, tail = (text[:3], text[-3:]) if len(text) >= 3 else ("", "")
    return PlainKey(key, text, head, tail, not case_sensitive, whole_words and len(text.split()) == 1)


def regex_key(key: str, bare: bool = False, case_sensitive: bool = True) -> RegexKey | None:
    """Of /a pattern/ with flags, or with `bare` of a pattern alone; None for what is neither."""
    slashed = _SLASHED.fullmatch(key) if key[0] == "/" else None
    if slashed and set(slashed[2]) <= set("gimsuy") and not _OPEN_SLASH.search(slashed[1]):
        return RegexKey(key, slashed[1], slashed[2])
    return RegexKey(key, key, "" if case_sensitive else "i") if bare else None


def _compiled(pattern: str, flags: str) -> Any:
    import regex

    bits = {"i": regex.IGNORECASE, "m": regex.MULTILINE, "s": regex.DOTALL}
    try:
        return regex.compile(checked(pattern), sum(bits.get(flag, 0) for flag in set(flags)) | regex.VERSION0, cache_pattern=False)
    except (regex.error, OverflowError, RecursionError, MemoryError) as error:
        raise PatternError(f"is no valid regular expression ({str(error)[:60]})") from error


def checked(pattern: str) -> str:
    """The pattern as `regex` has it. PatternError for more than JavaScript's syntax, and for repetitions that come to too many."""
    if len(pattern) > MAX_PATTERN:
        raise PatternError(f"is longer than {MAX_PATTERN} characters")
    at, parts, costs, last = 0, [], [0], 0  # what each open group comes to, written out; what a count would repeat
    while at < len(pattern):
        token = _TOKEN.match(pattern, at)
        if token is None:
            raise PatternError(f"has {pattern[at : at + 6]!r}, which is not JavaScript's or not allowed here")
        begin, at = at, token.end()
        if token["open"]:
            costs.append(0)
            if len(costs) > MAX_GROUPS:
                raise PatternError(f"has more than {MAX_GROUPS} groups in one another")
        elif token["close"] and len(costs) == 1:
            raise PatternError("closes a group that is not open")
        elif token["count"]:
            more = last * (max(int(token["least"]), int(token["most"] or 0)) - 1)
            costs[-1], last = costs[-1] + max(0, more), last + max(0, more)
        else:
            last = costs.pop() if token["close"] else 1
            costs[-1] += last
        if sum(costs) > MAX_COUNT:
            raise PatternError(f"is longer than {MAX_COUNT:,} characters when its repetitions are written out")
        if token["class"]:
            while at < len(pattern) and pattern[at] != "]":
                part = _IN_CLASS.match(pattern, at)
                at = part.end() if part else len(pattern)
            at += 1
        text = pattern[begin:at]
        parts.append("\\g" + text[2:] if text.startswith("\\k") else text)
    return "".join(parts)


def _of_word(character: str) -> bool:
    return character.isalnum() or character == "_"
