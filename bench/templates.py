"""Prompts as jinja2 renders them: every chat template of a folder, ours beside the reference.

python -m bench.templates FOLDER [--verbose]

The reference is jinja2's own sandbox with the settings, globals and filters of transformers' apply_chat_template; ours is the text of the
ids that a request comes to, laid out turn by turn where that is done. Where the template refuses a system message or leaves it out, both
put it before the first user's words. FOLDER holds *.jinja files, such as models/templates of llama.cpp.
"""

import argparse
import datetime
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import jinja2.ext
from jinja2 import nodes
from jinja2.exceptions import TemplateError as JinjaError
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from townhall.context.strategies import open_strategy
from townhall.errors import TemplateError
from townhall.fake.fake_model import FakeTokenizer
from townhall.formats.prompt_pieces import PromptTurn
from townhall.persona import Persona
from townhall.prompt import Prompt
from townhall.prompt_builder import open_window
from townhall.template import open_format
from townhall.transcript import lay_out

SYSTEM = "You are Stacy, who raps."
CONVERSATIONS: dict[str, list[str]] = {  # user and assistant in turn
    "plain": ["How far is the moon?", "About 384,000 km.", "And the sun?"],
    "indented": ["\n    def f():\n        return 1\n", "  One.\n\n", "\n\tAnd this?  \n"],
    "thinking": ["2 + 2?", "<think>\nTwo and two.\n</think>\n\nFour.", "Are you sure?"],
    "tool-free": ["Hi", "Hello!", 'Say "so"', 'So.\n\n- "so"', "Bye"],
}
THOUGHTS = "Two and two."  # before the answers of a conversation more, in a field of their own
BOS, EOS = "<s>", "</s>"


class GenerationBlock(jinja2.ext.Extension):
    """transformers' `{% generation %}` tag, without the tracking."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        lineno = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(lineno)

    def _body(self, caller: Any) -> str:
        return str(caller())


def reference(source: str, messages: list[dict[str, Any]]) -> str:
    """What transformers renders."""

    def raise_exception(message: str) -> None:
        raise JinjaError(message)

    def tojson(x: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False) -> str:
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[GenerationBlock, jinja2.ext.loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda format: datetime.datetime.now().strftime(format)
    template = environment.from_string(source)
    return template.render(messages=messages, tools=None, documents=None, add_generation_prompt=True, bos_token=BOS, eos_token=EOS)


def expected(source: str, system: str, turns: list[PromptTurn]) -> tuple[str | None, bool]:
    """(the reference's text, None where it refuses; whether the system message went into the first user turn for it).

    Messages whose words the template does not find are given to it as lists of parts.
    """
    spoken = [(turn.role, turn.text) for turn in turns]
    thoughts: dict[str, Any] = {"thinking": turns[1].reasoning, "reasoning_content": turns[1].reasoning} if turns[1].reasoning else {}
    for parts in (False, True):
        for folded in (False, True) if system else (False,):
            first = (spoken[0][0], f"{system}\n\n{spoken[0][1]}" if folded else spoken[0][1])
            messages = [*([("system", system)] if system and not folded else []), first, *spoken[1:]]
            content: list[dict[str, Any]] = [
                {"role": role, "content": [{"type": "text", "text": text}] if parts else text} | (thoughts if role == "assistant" else {})
                for role, text in messages
            ]
            try:
                text = reference(source, content)
            except Exception:  # a program of others may raise anything
                continue
            if system in text and turns[0].text.strip() in text:
                return text, folded
    return None, False


def ours(source: str, system: str, turns: list[PromptTurn]) -> str:
    """The text of the ids that a request with these messages comes to; TemplateError where the template is refused."""
    tokenizer = FakeTokenizer(source, add_bos=False)
    prompt = Prompt(open_format("chat_template", Persona("Assistant", "", style=system), tokenizer), tokenizer)
    plan = lay_out(prompt, open_strategy("stop"), open_window(prompt, 1 << 20, 64), turns)
    return tokenizer.show(plan.ids)


def outcome(source: str, system: str, texts: list[str], thoughts: str = "") -> tuple[str, str]:
    """(what came of it, the two texts where they differ)."""
    turns = [PromptTurn("assistant", text, thoughts) if at % 2 else PromptTurn("user", text) for at, text in enumerate(texts)]
    theirs, folded = expected(source, system, turns)
    try:
        mine = ours(source, system, turns)
    except TemplateError as error:
        return ("refused by both", "") if theirs is None else ("refused by us", str(error))
    if theirs is None:
        return "refused by jinja2", mine
    if mine != theirs:
        return "different", f"jinja2: {theirs!r}\nours:   {mine!r}"
    return ("same, system folded" if folded else "same"), ""


def counted(found: Counter[str]) -> str:
    """How often each came."""
    return ", ".join(f"{n} {what}" for what, n in sorted(found.items()))


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare prompts with what jinja2 renders, for each template of a folder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--verbose", action="store_true", help="print what differs")
    options = parser.parse_args()
    templates = sorted(options.folder.glob("*.jinja"))
    if not templates:
        parser.error(f"{options.folder} holds no .jinja file")
    total: Counter[str] = Counter()
    for name, texts in [*CONVERSATIONS.items(), ("reasoning", CONVERSATIONS["plain"])]:
        for system in ("", SYSTEM):
            found: Counter[str] = Counter()
            for path in templates:
                result, why = outcome(path.read_bytes().decode(), system, texts, THOUGHTS if name == "reasoning" else "")
                found[result] += 1
                if not result.startswith("same") and result != "refused by both" and options.verbose:
                    print(f"{path.name}, {name}{', system' if system else ''}: {result}\n{why}\n")
            total += found
            print(f"{name:<10}{'with' if system else 'without':>8} system  {counted(found)}")
    print(f"{len(templates)} templates, {sum(total.values())} cases: {counted(total)}")
    return int(any(total[what] for what in ("different", "refused by us", "refused by jinja2")))


if __name__ == "__main__":
    sys.exit(main())
