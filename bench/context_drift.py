"""How far a cache that was moved has come from one that was read afresh: logits over the same tokens, one against the other."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from app.models.llama import Llama
from app.models.llama.kv_cache import KVCache


@dataclass
class Drift:
    """Grows by one comparison per token; KL(fresh ‖ held) in nats."""

    agree: list[bool] = field(default_factory=list)
    divergence: list[float] = field(default_factory=list)

    def measure(self, llama: Llama, held: KVCache, last: int) -> None:
        """Compare what `held` says after each of its `last` newest tokens with what a fresh cache of the same tokens says.

        Both take these tokens one by one, so that only what lies before them differs. `held` ends up as it was.
        """
        tokens = list(held.tokens)
        at = max(1, len(tokens) - last)
        fresh = llama.new_cache()
        llama.prefill(tokens[:at], fresh)
        held.truncate(at)
        for token in tokens[at:]:
            ours = _log_softmax(llama.engine.step(token, held))
            theirs = _log_softmax(llama.engine.step(token, fresh))
            self.agree.append(bool(ours.argmax() == theirs.argmax()))
            self.divergence.append(float(np.sum(np.exp(theirs) * (theirs - ours))))

    def figures(self) -> dict[str, Any]:
        """Share of tokens with the same likeliest successor; mean, median and worst divergence."""
        if not self.agree:
            return {"tokens": 0}
        kl = np.array(self.divergence)
        return {
            "tokens": len(self.agree),
            "top1": float(np.mean(self.agree)),
            "kl_mean": float(kl.mean()),
            "kl_median": float(np.median(kl)),
            "kl_max": float(kl.max()),
        }


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    wide = logits.astype(np.float64)  # a copy as well: the engine's own array is overwritten by its next step
    wide -= wide.max()
    return np.asarray(wide - np.log(np.exp(wide).sum()))
