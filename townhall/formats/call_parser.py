"""Calls of functions in the text of an answer, found while it is being written."""

from collections.abc import Collection
from dataclasses import dataclass

import regex

from townhall.formats.call_syntax import ID, CallSyntax

NAME = r"(?P<name>[\w.\-]{1,64})"
BEFORE_ARGUMENTS = r"\s*(?=\{)"


@dataclass(frozen=True)
class CallPart:
    """More of a call: its name at first, with no arguments yet; then pieces of them."""

    index: int  # of the call in its message
    name: str = ""
    arguments: str = ""


class CallParser:
    """Text in, what is said (str) and parts of calls out, in order. What could still become a call is held back.

    White space between the syntax's marks is free. What begins like a call and is none, of a function that was not given say, is text.
    """

    def __init__(self, syntax: CallSyntax, names: Collection[str]):
        self._trigger, self._leads, self._names = syntax.trigger, syntax.leads, frozenset(names)
        middle = _lenient(syntax.middle) + BEFORE_ARGUMENTS
        self._head = regex.compile(r"\s*" + _lenient(syntax.opening) + NAME + middle)
        self._joint = regex.compile(_lenient(syntax.joint) + NAME + middle) if syntax.joint is not None else None
        self._closing = regex.compile(_lenient(syntax.closing) + r"\s*")
        self._text = ""  # not decided yet
        self._step = self._said
        self._spoken = False  # something that is no white space was said
        self._after = False  # a call was the last that came
        self._gap = ""  # white space before what may be a call
        self.calls = 0
        self._depth, self._quoted, self._escaped = 0, False, False

    def push(self, text: str) -> list[str | CallPart]:
        """Take the next piece."""
        self._text += text
        return self._parts(last=False)

    def flush(self) -> list[str | CallPart]:
        """The text has ended: what was held back is said, but for the marks of a call that was complete."""
        return self._parts(last=True)

    def _parts(self, last: bool) -> list[str | CallPart]:
        found: list[str | CallPart] = []
        while self._step(found, last):
            pass
        return [part for part in found if part]

    def _said(self, found: list[str | CallPart], last: bool) -> bool:
        """Up to what may be a call; white space in front of it is no part of the text, nor is any between and after calls."""
        at = self._text.find(self._trigger)
        if at >= 0 and self._leads and (self._spoken or self._text[:at].strip()):
            at = -1
        if at >= 0:
            before = self._text[:at].rstrip()
            self._say(found, before)
            self._gap, self._text, self._step = self._text[len(before) : at], self._text[at:], self._begun
            return True
        held = "" if last else self._undecided()
        said = self._text[: len(self._text) - len(held)]
        stripped = said.rstrip()
        self._text = "" if last else said[len(stripped) :] + held
        self._say(found, stripped)
        return False

    def _undecided(self) -> str:
        """The tail that may begin the trigger."""
        if self._leads and self._spoken:
            return ""
        most = min(len(self._text), len(self._trigger) - 1)
        return next((self._text[-n:] for n in range(most, 0, -1) if self._trigger.startswith(self._text[-n:])), "")

    def _say(self, found: list[str | CallPart], text: str) -> None:
        text = text.lstrip() if self._after else text
        if text.strip():
            self._spoken, self._after = True, False
        found.append(text)

    def _begun(self, found: list[str | CallPart], last: bool) -> bool:
        """A trigger is there."""
        head = self._head.match(self._text, partial=True)
        if head and not head.partial and head["name"] in self._names:
            self._call(found, head["name"], head.end())
            return True
        if head and head.partial and not last:
            return False
        # no call after all
        self._say(found, self._gap + self._text[: len(self._trigger)])
        self._text, self._step = self._text[len(self._trigger) :], self._said
        return True

    def _call(self, found: list[str | CallPart], name: str, end: int) -> None:
        found.append(CallPart(self.calls, name))
        self.calls += 1
        self._after = True
        self._text, self._step = self._text[end:], self._arguments
        self._depth, self._quoted, self._escaped = 0, False, False

    def _arguments(self, found: list[str | CallPart], last: bool) -> bool:
        """Up to the brace that closes them."""
        for at, character in enumerate(self._text):
            if self._escaped:
                self._escaped = False
            elif self._quoted:
                self._escaped, self._quoted = character == "\\", character != '"'
            elif character == '"':
                self._quoted = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if not self._depth:
                    found.append(CallPart(self.calls - 1, arguments=self._text[: at + 1]))
                    self._text, self._step = self._text[at + 1 :], self._ended
                    return True
        if self._text:
            found.append(CallPart(self.calls - 1, arguments=self._text))
        self._text = ""
        return False

    def _ended(self, found: list[str | CallPart], last: bool) -> bool:
        """After the arguments: another call, or the end of all."""
        joint = self._joint.match(self._text, partial=True) if self._joint else None
        if joint and not joint.partial and joint["name"] in self._names:
            self._call(found, joint["name"], joint.end())
            return True
        if joint and joint.partial and not last:
            return False
        closing = self._closing.match(self._text, partial=True)
        if closing and closing.partial and not last:
            return False
        self._text = self._text[closing.end() :] if closing else self._text
        self._step = self._said
        return True


def _lenient(text: str) -> str:
    """A regular expression for `text` in which white space is free and any id stands where one does."""
    parts: list[str] = []
    for character in text:
        if character == ID:
            parts.append("[A-Za-z0-9]{1,64}")
        elif character.isspace():
            parts.append(r"\s*")
        else:
            own = regex.escape(character)
            parts += [r"\s*", own, r"\s*"] if character in "{}[],:" else [own]
    return "".join(part for at, part in enumerate(parts) if part != r"\s*" or not at or parts[at - 1] != r"\s*")
