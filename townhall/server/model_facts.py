"""What is known of a model without its weights: prompts are planned with it, while the model is in memory and when it is not."""

from dataclasses import dataclass
from typing import Any

from townhall.language_model import LanguageModel


@dataclass(frozen=True)
class ModelFacts:
    """`config` is None for a double; `nbytes` are the weights' on their device."""

    device: str
    max_context: int
    tokenizer: Any
    fingerprint: str = ""
    config: Any = None
    nbytes: int = 0

    @classmethod
    def of(cls, llama: LanguageModel) -> "ModelFacts":
        """Nothing that is kept refers to `llama`."""
        nbytes = int(getattr(getattr(llama, "model", None), "nbytes", 0))
        fingerprint = str(getattr(llama, "fingerprint", ""))
        return cls(llama.device, llama.max_context, llama.tokenizer, fingerprint, getattr(llama, "config", None), nbytes)
