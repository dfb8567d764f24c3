"""The errors that a card or a lorebook can cause."""

from townhall.errors import PersonaError


class CardError(PersonaError):
    """A character card that is missing or broken, or asks for too much; names the file and the fault."""


class LorebookError(CardError):
    """A lorebook that cannot be used; names the entry and the fault."""
