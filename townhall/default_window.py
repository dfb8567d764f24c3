"""The context window that a model is loaded with: one that was asked for is kept or refused, any other fits itself to the model."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.models.llama import Llama

WINDOW = 1024  # tokens, where neither flags nor settings say


def load_llama(path: Path, window: int | None, note: Callable[[str], object], fit: bool = False, **others: Any) -> "Llama":
    """`Llama.load` with this window; None: `WINDOW`, or what the model was trained for if that is less, of which `note` gets a sentence.

    With `fit` a window that was given is made to fit in the same way. Raises what loading raises.
    """
    from app.models.llama import Llama
    from app.models.llama.checkpoint import open_checkpoint
    from app.models.llama.config import ConfigError

    wanted = WINDOW if window is None else window
    try:
        return Llama.load(path, wanted, **others)
    except ConfigError:
        # a window beyond the model's is refused before anything is read, so that trying costs nothing
        trained = open_checkpoint(path).config.context_length
        if (window is not None and not fit) or trained >= wanted:
            raise
    note(f"{path.name} was trained for {trained} tokens, so that is its context window instead of {wanted}")
    return Llama.load(path, trained, **others)
