"""A chat template asked how it lays out calls of functions: rendered over made-up ones, what it writes around them is the syntax."""

import re
from collections.abc import Mapping
from typing import Any

from townhall.errors import TemplateError
from townhall.formats.call_syntax import GENERAL, ID, CallSyntax
from townhall.formats.sandbox import Sandbox

_OPEN_THOUGHTS = re.compile(r"<think>\s*\Z")
_LISTED, _CALLED, _OTHER = "qz_listed", "qz_called", "qz_other"
_IDS = ("qzid00001", "qzid00002")
_ARGUMENTS = re.compile(r'\{\s*"qz_key"\s*:\s*"qz_value"\s*\}')
_TOOL = {
    "type": "function",
    "function": {
        "name": _LISTED,
        "description": "qz_description",
        "parameters": {"type": "object", "properties": {"qz_key": {"type": "string", "description": "A key."}}, "required": ["qz_key"]},
    },
}
_QUESTION = {"role": "user", "content": "qz_question"}


def learnt_from(source: str, bos_token: str = "", eos_token: str = "") -> CallSyntax:
    """The syntax of a chat template that lists tools and lays calls and results out; GENERAL for any other."""
    try:
        probe = _Probe(Sandbox(source), {"bos_token": bos_token, "eos_token": eos_token, "documents": None})
        if _LISTED not in probe.text([_QUESTION]):
            return GENERAL
    except TemplateError:
        return GENERAL
    for as_text in (False, True):
        for empty in ("", None):
            try:
                return probe.syntax(as_text, empty)
            except TemplateError:
                continue
    return GENERAL


class _Probe:
    """A template, asked how it lays out made-up calls."""

    def __init__(self, sandbox: Sandbox, variables: Mapping[str, Any]):
        self._sandbox, self._variables = sandbox, variables

    def text(self, messages: list[dict[str, Any]], cue: bool = False) -> str:
        return str(self._sandbox.render(messages, {**self._variables, "tools": [_TOOL], "add_generation_prompt": cue}))

    def syntax(self, as_text: bool, empty: str | None) -> CallSyntax:
        """TemplateError where calls or results are not laid out in a way that can be followed."""

        def called(*names: str) -> dict[str, Any]:
            arguments: Any = '{"qz_key": "qz_value"}' if as_text else {"qz_key": "qz_value"}
            calls = [
                {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
                for id, name in zip(_IDS, names, strict=False)
            ]
            return {"role": "assistant", "content": empty, "tool_calls": calls}

        asked, one = self.text([_QUESTION], cue=True), self.text([_QUESTION, called(_CALLED)])
        said = self.text([_QUESTION, {"role": "assistant", "content": "qz_answer"}])
        answered = self.text(
            [_QUESTION, called(_CALLED), {"role": "tool", "name": _CALLED, "content": "qz_result", "tool_call_id": _IDS[0]}]
        )
        if "qz_result" not in answered:
            raise TemplateError("results of calls are left out")
        start = _OPEN_THOUGHTS.sub("", asked)
        if not one.startswith(start):
            raise TemplateError("a call does not follow the cue")
        opening, middle, rest = _around(one[len(start) :], _CALLED)
        close = said[said.rindex("qz_answer") + len("qz_answer") :] if "qz_answer" in said else ""
        if not rest.endswith(close):
            raise TemplateError("a call ends otherwise than an answer")
        return CallSyntax(
            opening, middle, rest[: len(rest) - len(close)], self._joint(called(_CALLED, _OTHER), len(start)), True, as_text, empty
        )

    def _joint(self, both: dict[str, Any], start: int) -> str | None:
        """What stands between two calls of a message."""
        try:
            two = self.text([_QUESTION, both])[start:]
            *_, rest = _around(two, _CALLED)
            between, _, _ = _around(rest, _OTHER)
        except TemplateError:
            return None
        return between


def _around(text: str, name: str) -> tuple[str, str, str]:
    """(before the name, between name and arguments, after the arguments) of the first call of `name` in `text`, ids marked."""
    before, found, after = text.partition(name)
    arguments = _ARGUMENTS.search(after)
    if not found or not arguments:
        raise TemplateError("a call's arguments are no JSON")
    parts = [before, after[: arguments.start()], after[arguments.end() :]]
    for id in _IDS:
        parts = [part.replace(id, ID) for part in parts]
    return parts[0], parts[1], parts[2]
