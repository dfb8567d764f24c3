"""Events of a request, emitted by the engine's thread."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.models.llama.logits_processors import TokenLogprob
from townhall.server.errors import APIError


@dataclass(frozen=True)
class TextEvent:
    """More of an answer; `likely` is what was asked to be known of the ids that are shown whole now."""

    index: int
    text: str
    logprobs: Sequence[TokenLogprob] = ()


@dataclass(frozen=True)
class AnswerEnd:
    """An answer is complete: "stop" or "length"."""

    index: int
    finish_reason: str


@dataclass(frozen=True)
class RequestFigures:
    """What a request took; seconds from its arrival to its first text."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    first_seconds: float | None
    decode_seconds: float
    seeds: Sequence[int] = ()


@dataclass(frozen=True)
class JobDone:
    """All answers are complete."""

    figures: RequestFigures


@dataclass(frozen=True)
class JobFailed:
    """Nothing more comes."""

    error: APIError


Event = TextEvent | AnswerEnd | JobDone | JobFailed
