"""What is answered: OpenAI's reply objects, whole and in chunks, built from what the engine's thread tells."""

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from app.models.llama.logits_processors import TokenLogprob
from townhall.language_model import TextTokenizer
from townhall.server.job import AnswerEnd, AnswerRequest, RequestFigures, TextEvent
from townhall.server.prompt_logprobs import UnscoredToken
from townhall.server.text_offsets import TextOffsets

JSON = dict[str, Any]
LEAST = -9999.0  # what cannot come at all, in numbers that JSON has


class ResponseBuilder(ABC):
    """One reply in the making; the kinds differ in how a choice looks."""

    object: str
    chunk: str
    prefix: str

    def __init__(self, model: str, tokenizer: TextTokenizer, info: JSON, runs: Sequence[AnswerRequest], logprobs: bool):
        self.id, self.created = f"{self.prefix}-{secrets.token_hex(12)}", int(time.time())
        self.model, self._tokenizer, self._info = model, tokenizer, info
        self._texts, self._reasoning = [""] * len(runs), [""] * len(runs)
        self._logprobs: list[list[TokenLogprob | UnscoredToken]] = [[] for _ in runs]
        self._finish: list[str | None] = [None] * len(runs)
        self._wants_logprobs = logprobs

    def add(self, event: TextEvent | AnswerEnd) -> None:
        """Take what was said into the whole reply."""
        if isinstance(event, TextEvent):
            self._texts[event.index] += event.text
            self._reasoning[event.index] += event.reasoning
            self._logprobs[event.index] += event.logprobs
        else:
            self._finish[event.index] = event.finish_reason

    def whole(self, figures: RequestFigures) -> JSON:
        """The reply, not streamed."""
        choices = [
            {"index": at, **self._said(self._texts[at], self._reasoning[at]), "logprobs": self._of(at, logprobs), "finish_reason": finish}
            for at, (logprobs, finish) in enumerate(zip(self._logprobs, self._finish, strict=True))
        ]
        return {**self._frame(self.object), "choices": choices, "usage": usage(figures), "townhall": self.receipt(figures)}

    def opening(self, index: int) -> JSON | None:
        """The first chunk of a choice, where the kind has one."""
        return None

    def piece(self, event: TextEvent) -> JSON:
        """A chunk of text."""
        return self._chunk(event.index, self._delta(event.text, event.reasoning), self._of(event.index, event.logprobs), None)

    def end(self, event: AnswerEnd) -> JSON:
        """The last chunk of a choice."""
        return self._chunk(event.index, self._delta(""), None, event.finish_reason)

    def usage_chunk(self, figures: RequestFigures) -> JSON:
        """After the last choice has ended."""
        return {**self._frame(self.chunk), "choices": [], "usage": usage(figures), "townhall": self.receipt(figures)}

    def receipt(self, figures: RequestFigures) -> JSON:
        """What became of the prompt, and which seeds repeat the answers."""
        return {**self._info, "prompt_tokens": figures.prompt_tokens, "seeds": list(figures.seeds)}

    def _frame(self, object: str) -> JSON:
        return {"id": self.id, "object": object, "created": self.created, "model": self.model, "system_fingerprint": None}

    def _chunk(self, index: int, delta: JSON, logprobs: JSON | None, finish: str | None) -> JSON:
        choice = {"index": index, **delta, "logprobs": logprobs, "finish_reason": finish}
        return {**self._frame(self.chunk), "choices": [choice]}

    @abstractmethod
    def _said(self, text: str, reasoning: str = "") -> JSON:
        """A whole answer's text in the shape of its kind."""

    @abstractmethod
    def _delta(self, text: str, reasoning: str = "") -> JSON:
        """A piece of text in the shape of its kind."""

    @abstractmethod
    def _of(self, index: int, logprobs: Sequence[TokenLogprob | UnscoredToken]) -> JSON | None:
        """Log-probabilities of a choice, each asked for once and in order, in the shape of its kind; None where they were not requested."""

    def _spell(self, token: int) -> bytes:
        spell = getattr(self._tokenizer, "token_bytes", None)
        data: bytes = spell(token) if spell else b""
        return data


class ChatResponseBuilder(ResponseBuilder):
    """chat.completion."""

    object, chunk, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl"

    def opening(self, index: int) -> JSON | None:
        chunk = self._chunk(index, {"delta": {"role": "assistant", "content": ""}}, None, None)
        # who hangs up early would never hear what became of the prompt
        return chunk if index else {**chunk, "townhall": dict(self._info)}

    def _said(self, text: str, reasoning: str = "") -> JSON:
        return {"message": {"role": "assistant", "content": text, "refusal": None} | _thoughts(reasoning)}

    def _delta(self, text: str, reasoning: str = "") -> JSON:
        return {"delta": ({"content": text} if text else {}) | _thoughts(reasoning)}

    def _of(self, index: int, logprobs: Sequence[TokenLogprob | UnscoredToken]) -> JSON | None:
        if not self._wants_logprobs:
            return None
        known = [one for one in logprobs if isinstance(one, TokenLogprob)]
        return {
            "content": [self._entry(one.token, one.logprob) | {"top_logprobs": [self._entry(*top) for top in one.top]} for one in known],
            "refusal": None,
        }

    def _entry(self, token: int, logprob: float) -> JSON:
        data = self._spell(token)
        return {"token": data.decode("utf-8", "replace"), "bytes": list(data), "logprob": logprob}


class TextResponseBuilder(ResponseBuilder):
    """text_completion."""

    object, chunk, prefix = "text_completion", "text_completion", "cmpl"

    def __init__(self, model: str, tokenizer: TextTokenizer, info: JSON, runs: Sequence[AnswerRequest], logprobs: bool):
        super().__init__(model, tokenizer, info, runs, logprobs)
        self._special = {n: text for text, n in tokenizer.special_ids.items()} if logprobs else {}
        self._offsets = [TextOffsets(tokenizer, run, self._special) for run in runs]

    def _said(self, text: str, reasoning: str = "") -> JSON:
        return {"text": text}

    _delta = _said

    def _of(self, index: int, logprobs: Sequence[TokenLogprob | UnscoredToken]) -> JSON | None:
        if not self._wants_logprobs:
            return None
        return {
            "tokens": [self._spelled(one.token) for one in logprobs],
            "token_logprobs": [max(LEAST, one.logprob) if isinstance(one, TokenLogprob) else None for one in logprobs],
            "top_logprobs": [self._top(one) if isinstance(one, TokenLogprob) else None for one in logprobs],
            "text_offset": [self._offsets[index].next(one.token) for one in logprobs],
        }

    def _top(self, one: TokenLogprob) -> dict[str, float]:
        """The likeliest and the token itself; of several that are spelled alike, the likeliest."""
        found: dict[str, float] = {}
        for token, value in (*one.top, (one.token, max(LEAST, one.logprob))):
            found.setdefault(self._spelled(token), value)
        return found

    def _spelled(self, token: int) -> str:
        return self._special.get(token) or self._spell(token).decode("utf-8", "replace")


def _thoughts(reasoning: str) -> JSON:
    """The field that other local servers have for them; OpenAI's objects know none."""
    return {"reasoning_content": reasoning} if reasoning else {}


def usage(figures: RequestFigures) -> JSON:
    """OpenAI's usage object."""
    return {
        "prompt_tokens": figures.prompt_tokens,
        "completion_tokens": figures.completion_tokens,
        "total_tokens": figures.prompt_tokens + figures.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": figures.cached_tokens},
    }
