"""Townhall: personas that talk, on a LLaMA written by hand in tinygrad."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from townhall.conversation import Conversation, Reply
    from townhall.persona import Persona, list_personas, load_persona

__all__ = ["Conversation", "Persona", "Reply", "list_personas", "load_persona"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # imported when asked for, so that `townhall --help` answers at once
    if name in {"Conversation", "Reply"}:
        from townhall import conversation

        return getattr(conversation, name)
    if name in {"Persona", "list_personas", "load_persona"}:
        from townhall import persona

        return getattr(persona, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
