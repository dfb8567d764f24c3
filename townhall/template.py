"""How a prompt is laid out: two formats behind one protocol, and the rule that picks one for a model."""

from collections.abc import Callable

from townhall.errors import TemplateError
from townhall.formats.prompt_pieces import Piece, PromptFormat, PromptTurn
from townhall.language_model import TextTokenizer
from townhall.persona import Persona

__all__ = ["FORMATS", "Piece", "PromptFormat", "PromptTurn", "open_format"]


def _chat_log(persona: Persona, tokenizer: TextTokenizer, think: bool | None) -> PromptFormat:
    from townhall.formats.chat_log import ChatLog

    return ChatLog(persona)


def _chat_template(persona: Persona, tokenizer: TextTokenizer, think: bool | None) -> PromptFormat:
    from townhall.formats.chat_template import ChatTemplate  # jinja2 is imported only where a template is used

    if not tokenizer.chat_template:
        raise TemplateError("the model brings no chat template; pass --format chat_log")
    return ChatTemplate(persona, tokenizer.chat_template, tokenizer.bos_token, tokenizer.eos_token, think)


FORMATS: dict[str, Callable[[Persona, TextTokenizer, bool | None], PromptFormat]] = {"chat_log": _chat_log, "chat_template": _chat_template}


def open_format(name: str, persona: Persona, tokenizer: TextTokenizer, think: bool | None = None) -> PromptFormat:
    """The format called `name`; "auto" follows the model: its chat template where it has one, else the chat log.

    `think`: whether the model thinks before it answers, where its template knows the switch; None leaves it to the template.
    """
    if name == "auto":
        name = "chat_template" if tokenizer.chat_template else "chat_log"
    if name not in FORMATS:
        raise TemplateError(f"no prompt format is called {name!r}; --format takes auto, {', '.join(FORMATS)}")
    return FORMATS[name](persona, tokenizer, think)
