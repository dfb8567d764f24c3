"""What a person may set of an answer, checked, in the API's own words."""

from dataclasses import dataclass
from typing import Any

from townhall.conversation import MAX_REPLY, REPEAT_PENALTY, TEMPERATURE
from townhall.web.client import WebError

STRATEGIES = {
    "slide": "slide: forget the oldest",
    "shift": "shift: forget, reread nothing",
    "summarize": "summarize: forget, keep notes",
    "stop": "stop: refuse what does not fit",
}


@dataclass(frozen=True)
class SamplingControls:
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
        temperature: float | None,
        top_p: float | None,
        top_k: float | None,
        min_p: float | None,
        repeat_penalty: float | None,
        seed: str,
        most: float | None,
        context: str,
    ) -> "SamplingControls":
        """From what the page's fields hold: every number is a float there, and an empty field is None. WebError for a seed that is none."""
        plain = cls()
        return cls(
            temperature=plain.temperature if temperature is None else float(temperature),
            top_p=plain.top_p if top_p is None else float(top_p),
            top_k=plain.top_k if top_k is None else int(top_k),
            min_p=plain.min_p if min_p is None else float(min_p),
            repeat_penalty=plain.repeat_penalty if repeat_penalty is None else float(repeat_penalty),
            seed=_seed(seed),
            max_tokens=plain.max_tokens if most is None else int(most),
            context=context,
        )

    def body(self) -> dict[str, Any]:
        """Fields of a request."""
        return {key: value for key, value in vars(self).items() if value is not None}


PLAIN = SamplingControls()  # the defaults


def _seed(text: str) -> int | None:
    text = (text or "").strip()
    if not text:
        return None
    if not text.isascii() or not text.isdecimal():
        raise WebError(f"The seed {text[:20]!r} is no whole number; leave it empty for another one each time.")
    return int(text)
