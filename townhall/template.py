"""How a prompt is laid out: three formats behind one protocol, and the rule that picks one for a model."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from townhall.errors import TemplateError
from townhall.formats.call_syntax import GENERAL, CallSyntax
from townhall.formats.prompt_pieces import Piece, PromptFormat, PromptTurn
from townhall.language_model import TextTokenizer
from townhall.persona import Persona

__all__ = ["FORMATS", "Piece", "PromptFormat", "PromptTurn", "call_syntax", "open_format"]


Tools = Sequence[Mapping[str, Any]]  # functions as OpenAI's API describes them


def _chat_log(persona: Persona, tokenizer: TextTokenizer, think: bool | None, tools: Tools, syntax: CallSyntax | None) -> PromptFormat:
    from townhall.formats.chat_log import ChatLog

    return ChatLog(persona)


def _alpaca_roleplay(
    persona: Persona, tokenizer: TextTokenizer, think: bool | None, tools: Tools, syntax: CallSyntax | None
) -> PromptFormat:
    from townhall.formats.alpaca_roleplay import AlpacaRoleplay

    return AlpacaRoleplay(persona)


def _chat_template(persona: Persona, tokenizer: TextTokenizer, think: bool | None, tools: Tools, syntax: CallSyntax | None) -> PromptFormat:
    from townhall.formats.chat_template import ChatTemplate  # jinja2 is imported only where a template is used

    if not tokenizer.chat_template:
        raise TemplateError("the model brings no chat template; pass --format chat_log")
    return ChatTemplate(persona, tokenizer.chat_template, tokenizer.bos_token, tokenizer.eos_token, think, tools, syntax)


FORMATS: dict[str, Callable[[Persona, TextTokenizer, bool | None, Tools, CallSyntax | None], PromptFormat]] = {
    "alpaca_roleplay": _alpaca_roleplay,
    "chat_log": _chat_log,
    "chat_template": _chat_template,
}


def open_format(
    name: str, persona: Persona, tokenizer: TextTokenizer, think: bool | None = None, tools: Tools = (), syntax: CallSyntax | None = None
) -> PromptFormat:
    """The format called `name`; "auto" follows the model: its chat template where it has one, else the chat log.

    `think`: whether the model thinks before it answers, where its template knows the switch; None leaves it to the template. `tools` go to
    a template of which `syntax` says that it lays them out (`call_syntax`); the other formats know none.
    """
    if name == "auto":
        name = "chat_template" if tokenizer.chat_template else "chat_log"
    if name not in FORMATS:
        raise TemplateError(f"no prompt format is called {name!r}; --format takes auto, {', '.join(FORMATS)}")
    return FORMATS[name](persona, tokenizer, think, tools, syntax)


def call_syntax(name: str, tokenizer: TextTokenizer) -> CallSyntax:
    """How the model writes calls of functions, in the format called `name`: as its chat template has them, or the general form."""
    if name not in ("auto", "chat_template") or not tokenizer.chat_template:
        return GENERAL
    from townhall.formats.call_probe import learnt_from

    return learnt_from(tokenizer.chat_template, tokenizer.bos_token, tokenizer.eos_token)
