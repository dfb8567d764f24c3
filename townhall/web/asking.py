"""What a person may set of an answer, checked, in the API's own words."""

from dataclasses import dataclass
from typing import Any

from townhall.conversation import MAX_REPLY, REPEAT_PENALTY, TEMPERATURE

STRATEGIES = {
    "slide": "slide: forget the oldest, read the rest again",
    "shift": "shift: forget the oldest, keep the rest in place",
    "summarize": "summarize: forget the oldest, keep a memory of them",
    "stop": "stop: refuse what does not fit",
}


@dataclass(frozen=True)
class Asking:
    """How ids are drawn and what happens to a long talk."""

    temperature: float = TEMPERATURE
    top_p: float = 0.95
    top_k: int = 40
    min_p: float = 0.0
    repeat_penalty: float = REPEAT_PENALTY
    seed: int | None = None
    max_tokens: int = MAX_REPLY
    context: str = "slide"

    @classmethod
    def from_page(
        cls,
        temperature: float,
        top_p: float,
        top_k: float,
        min_p: float,
        repeat_penalty: float,
        seed: float | None,
        most: float,
        context: str,
    ) -> "Asking":
        """From what the page's fields hold: every number is a float there, and an empty field is None."""
        drawn = None if seed is None else int(seed)
        return cls(
            _or(temperature, TEMPERATURE), _or(top_p, 0.95), int(_or(top_k, 40)), _or(min_p, 0.0), _or(repeat_penalty, REPEAT_PENALTY),
            drawn, max(1, int(_or(most, MAX_REPLY))), context if context in STRATEGIES else "slide",
        )  # fmt: skip

    def body(self) -> dict[str, Any]:
        """Fields of a request."""
        return {key: value for key, value in vars(self).items() if value is not None}


def _or(value: float | None, default: float) -> float:
    return default if value is None else float(value)
