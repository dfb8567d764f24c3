"""The reply to a turn: its text and its figures."""

from dataclasses import asdict, dataclass
from typing import Any

from townhall.context.receipt import Receipt


@dataclass(frozen=True)
class Reply:
    """`finish_reason` is "stop" (an end token or a stop string), "length" (max_tokens or the window), or "interrupted"."""

    text: str
    tokens: int  # sampled
    prompt_tokens: int
    cached_tokens: int  # of the prompt, already in the KV cache
    finish_reason: str
    prefill_seconds: float
    decode_seconds: float
    device: str
    receipt: Receipt

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"receipt": self.receipt.to_json()}
