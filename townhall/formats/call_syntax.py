"""How a model writes calls of functions: as its chat template has them (`call_probe`), or in the general form that a prompt describes.

The general form is that of Hermes and Qwen 2.5, which more models have seen than any other: `<tool_call>` with a JSON object in it, results
in `<tool_response>`. A template that lists the tools it is given says by itself how calls look (Hermes, Qwen: that form; Llama 3.1:
`{"name": …, "parameters": …}`; Mistral: `[TOOL_CALLS] [{"name": …, "arguments": …, "id": …}]`), since it has to lay out earlier ones.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from townhall.formats.prompt_pieces import ToolCall

ID = "\x00"  # in a syntax: where a call's id stands
ID_LENGTH = 9  # of letters and digits, as Mistral's templates insist on
_TAG = re.compile(r"\s*(<[^<>\s]+>|\[[A-Z_]+\])")


@dataclass(frozen=True)
class CallSyntax:
    """`opening`, a name, `middle`, the arguments as JSON, `closing`; between two calls `joint` instead of closing and opening."""

    opening: str
    middle: str
    closing: str
    joint: str | None  # None: one call in a message is all that the template takes
    template: bool = False  # tools, calls and results are laid out by the model's template
    arguments_as_text: bool = False  # it wants them as a text, not as a mapping
    empty: str | None = ""  # it wants this as the content of a message that only calls

    @property
    def trigger(self) -> str:
        """How a call differs from text: the opening's first tag, or all of it where it has none."""
        tag = _TAG.match(self.opening)
        return tag[1] if tag else self.opening.strip()

    @property
    def leads(self) -> bool:
        """Is the trigger one only at the beginning of an answer, since it is no tag?"""
        return _TAG.match(self.opening) is None

    def write(self, calls: Sequence[ToolCall]) -> str:
        """Calls as the model writes them."""
        if self.joint is None and len(calls) > 1:
            return "\n".join(self.write([call]) for call in calls)
        text = self.opening if calls else ""
        for at, call in enumerate(calls, 1):
            after = self.closing if at == len(calls) else self.joint or ""
            text += f"{call.name}{self.middle.replace(ID, call.id)}{call.arguments}{after.replace(ID, call.id)}"
        return text


GENERAL = CallSyntax('<tool_call>\n{"name": "', '", "arguments": ', "}\n</tool_call>", '}\n</tool_call>\n<tool_call>\n{"name": "')


def instructions(tools: Sequence[Mapping[str, Any]]) -> str:
    """The general form's words for the system message: the same whatever the choice, so that a cache keeps them."""
    listed = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    return (
        "# Tools\n\nWhere one of these functions helps with the answer, call it. "
        f"Each line in <tools></tools> is a function, with its parameters as a JSON schema:\n"
        f"<tools>\n{listed}\n</tools>\n\n"
        "A call is a JSON object with the function's name and its arguments, within <tool_call></tool_call>:\n"
        '<tool_call>\n{"name": "the function\'s name", "arguments": {"a parameter": "its value"}}\n</tool_call>'
    )


def result(text: str) -> str:
    """The general form of what a tool returned."""
    return f"<tool_response>\n{text}\n</tool_response>"


def template_id(id: str) -> str:
    """A call's id as every template takes it: nine letters and digits, the same for the same id."""
    if len(id) == ID_LENGTH and id.isascii() and id.isalnum():
        return id
    return hashlib.sha256(id.encode("utf-8", "replace")).hexdigest()[:ID_LENGTH]


def parsed(arguments: str) -> Any:
    """A call's arguments as a template wants them, a mapping; what is no JSON stays the text that it is."""
    try:
        return json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        return arguments
