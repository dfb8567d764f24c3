"""What a fake model says: an echo of the question, or the replies of a YAML file one after another."""

import re
from collections.abc import Callable
from pathlib import Path

import yaml

from townhall.errors import ModelError
from townhall.fake.fake_model import FakeModel, ScriptedReply
from townhall.yaml_file import Fields, YamlFile

PREFIX = "fake:"
MOST_REPLIES = 10_000
LONGEST_PAUSE = 60.0  # seconds
_KNOWN, _REPLY = ("replies", "pause", "prefill"), ("text", "tokens", "pause", "prefill")


def open_fake(model: Path | str, max_context: int = 1024) -> FakeModel:
    """The double that `fake:echo` or `fake:script=FILE` names; ModelError says what is wrong with it."""
    kind, _, path = str(model).removeprefix(PREFIX).partition("=")
    if kind == "echo" and not path:
        return FakeModel(echo, max_context, source="echo")
    if kind == "script" and path:
        lines = read_script(Path(path).expanduser())
        return FakeModel(recite(lines), max_context, source=repr([(line.text, line.tokens) for line in lines]))
    raise ModelError(f"--model {model} names no double; pass fake:echo or fake:script=FILE, a YAML file with a list of replies")


def echo(prompt: str) -> ScriptedReply:
    """The last thing that the user said, or the last line of a raw prompt."""
    turns = re.findall(r"<\|im_start\|>user\n(.*?)<\|im_end\|>", prompt, re.DOTALL) or re.findall(
        r"(?:<CHAT LOG>|\[EOS\])\n[^:\n]+: ((?:(?!\[EOS\]\n).)*)\n[^:\n]+:$", prompt, re.DOTALL
    )
    return ScriptedReply(turns[-1] if turns else prompt.removeprefix("<s>").splitlines()[-1] if prompt.removeprefix("<s>") else "")


def recite(lines: list[ScriptedReply]) -> Callable[[str], ScriptedReply]:
    """One line for each prompt; after the last the first comes again."""
    at = -1

    def say(prompt: str) -> ScriptedReply:
        nonlocal at
        at += 1
        return lines[at % len(lines)]

    return say


def read_script(path: Path) -> list[ScriptedReply]:
    """The replies of a YAML file; ModelError names the file, the line and the fault.

    `replies` is a list of texts, or of mappings with `text` or `tokens` and a `pause` and `prefill` of their own; `pause` is seconds
    before each token, `prefill` seconds before the first one.
    """
    return YamlFile("script", path, ModelError).load(_lines, _KNOWN, empty="it needs a list of replies")


def _lines(fields: Fields) -> list[ScriptedReply]:
    pause, prefill = fields.number("pause", LONGEST_PAUSE), fields.number("prefill", LONGEST_PAUSE)
    lines = []
    for node in fields.items("replies", MOST_REPLIES):
        if isinstance(node, yaml.MappingNode):
            reply = Fields(fields.file, fields.loader, node, "a reply", _REPLY)
            if ("text" in reply.values) == ("tokens" in reply.values):
                raise reply.fault("text", "a reply needs 'text' or 'tokens', one of them")
            tokens = reply.strings("tokens", MOST_REPLIES) if "tokens" in reply.values else None
            text, own = reply.verbatim("text") if tokens is None else "", reply
        else:
            tokens, text, own = None, fields.string(node, "replies"), None
        lines.append(
            ScriptedReply(
                text,
                tokens,
                own.number("pause", LONGEST_PAUSE, pause) if own else pause,
                own.number("prefill", LONGEST_PAUSE, prefill) if own else prefill,
            )
        )
    if not lines:
        raise fields.fault("replies", "'replies' must be a list of at least one text")
    return lines
