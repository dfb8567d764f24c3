"""Sampling settings of the page, checked, as fields of the API."""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from app.sampler_settings import DECLARED, SamplerSettings, parse_texts
from townhall.conversation import MAX_REPLY, REPEAT_PENALTY, TEMPERATURE
from townhall.web.client import WebError


@dataclass(frozen=True)
class SamplingControls(SamplerSettings):
    """How ids are drawn and what happens to a long talk."""

    temperature: float = TEMPERATURE
    repeat_penalty: float = REPEAT_PENALTY
    seed: int | None = None
    max_tokens: int = MAX_REPLY
    context: str = "slide"

    @classmethod
    def from_page(cls, *values: Any) -> "SamplingControls":
        """From what the page's controls hold, in the order of NAMES: every number is a float there, and an empty field is None.

        WebError for a seed that is none, and for a list that is none."""
        given = dict(zip(NAMES, values, strict=True))
        seed, context = _seed(given.pop("seed")), given.pop("context")
        kinds: dict[str, Callable[[Any], Any]] = {
            name: partial(_texts, name) if declared.kind is tuple else declared.kind for name, declared in DECLARED.items()
        }
        kinds["max_tokens"] = int
        return cls(**{name: kinds[name](value) for name, value in given.items() if value is not None}, seed=seed, context=context)

    def body(self) -> dict[str, Any]:
        """Fields of a request."""
        return {key: value for key, value in vars(self).items() if value is not None}


# controls of the page, from the top
SLIDERS = sorted(DECLARED, key=lambda name: DECLARED[name].place)
NAMES = (*SLIDERS, "seed", "max_tokens", "context")

PLAIN = SamplingControls()  # the defaults


def as_text(texts: Sequence[str]) -> str:
    """A list as the page shows it, and `from_page` reads it."""
    return json.dumps(list(texts), ensure_ascii=False)


def _texts(name: str, given: str | Sequence[str]) -> tuple[str, ...]:
    declared = DECLARED[name]
    with suppress(ValueError):
        found = tuple(parse_texts(given) if isinstance(given, str) else given)
        if declared.holds(found):
            return found
    raise WebError(f'{declared.label} must be {declared.description}, such as ["\\n", ":"].')


def _seed(text: str) -> int | None:
    text = (text or "").strip()
    if not text:
        return None
    if not text.isascii() or not text.isdecimal():
        raise WebError(f"The seed {text[:20]!r} is no whole number; leave it empty for another one each time.")
    return int(text)
