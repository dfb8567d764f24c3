"""What is answered: OpenAI's reply objects, whole and in chunks, built from what the engine's thread tells."""

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from app.models.llama.logits_processors import TokenLogprob
from townhall.language_model import TextTokenizer
from townhall.server.job import AnswerEnd, RequestFigures, TextEvent
from townhall.server.planned_request import PlannedRequest
from townhall.server.prompt_logprobs import UnscoredToken
from townhall.server.text_offsets import TextOffsets
from townhall.server.tools import CallDelta, CallReader

JSON = dict[str, Any]
LEAST = -9999.0  # what cannot come at all, in numbers that JSON has


class ResponseBuilder(ABC):
    """One reply in the making; the kinds differ in how a choice looks."""

    object: str
    chunk: str
    prefix: str

    def __init__(
        self,
        planned: PlannedRequest,
        tokenizer: TextTokenizer,
        logprobs: bool,
    ):
        self.id, self.created = f"{self.prefix}-{secrets.token_hex(12)}", int(time.time())
        self.model, self._tokenizer, self._planned = planned.model, tokenizer, planned
        runs, calls = planned.runs, planned.calls
        self._texts, self._reasoning = [""] * len(runs), [""] * len(runs)
        self._legacy = bool(calls and calls.legacy)
        self._readers = [calls.reader() if calls else CallReader() for _ in runs]
        self._logprobs: list[list[TokenLogprob | UnscoredToken]] = [[] for _ in runs]
        self._finish: list[str | None] = [None] * len(runs)
        self._wants_logprobs = logprobs

    def add(self, event: TextEvent | AnswerEnd) -> None:
        """Take what was said into the whole reply."""
        if isinstance(event, TextEvent):
            self._texts[event.index] += event.text
            self._readers[event.index].push(event.text)
            self._reasoning[event.index] += event.reasoning
            self._logprobs[event.index] += event.logprobs
        else:
            reader = self._readers[event.index]
            reader.flush()
            self._finish[event.index] = reader.finish(event.finish_reason)

    def whole(self, figures: RequestFigures) -> JSON:
        """The reply, not streamed."""
        choices = [
            {"index": at, **self._choice(at), "logprobs": self._of(at, logprobs), "finish_reason": self._finished(finish)}
            for at, (logprobs, finish) in enumerate(zip(self._logprobs, self._finish, strict=True))
        ]
        return {**self._frame(self.object), "choices": choices, "usage": usage(figures), "townhall": self.receipt(figures)}

    def opening(self, index: int) -> JSON | None:
        """The first chunk of a choice, where the kind has one."""
        return None

    @abstractmethod
    def pieces(self, event: TextEvent) -> list[JSON]:
        """The chunks of a text, none where all of it is held back."""

    @abstractmethod
    def ends(self, event: AnswerEnd) -> list[JSON]:
        """The last chunks of a choice."""

    def usage_chunk(self, figures: RequestFigures) -> JSON:
        """After the last choice has ended."""
        return {**self._frame(self.chunk), "choices": [], "usage": usage(figures), "townhall": self.receipt(figures)}

    def receipt(self, figures: RequestFigures) -> JSON:
        """What became of the prompt, which passages the answers cite, and which seeds repeat them."""
        return self._planned.receipt(figures, *(reader.content for reader in self._readers))

    def _frame(self, object: str) -> JSON:
        return {"id": self.id, "object": object, "created": self.created, "model": self.model, "system_fingerprint": None}

    def _chunk(self, index: int, delta: JSON, logprobs: JSON | None, finish: str | None) -> JSON:
        choice = {"index": index, **delta, "logprobs": logprobs, "finish_reason": finish}
        return {**self._frame(self.chunk), "choices": [choice]}

    def _finished(self, reason: str | None) -> str | None:
        """A finish reason by the name that the kind has for it."""
        return reason

    @abstractmethod
    def _choice(self, at: int) -> JSON:
        """A whole answer in the shape of its kind."""

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
        return chunk if index else {**chunk, "townhall": self._planned.begun}

    def _finished(self, reason: str | None) -> str | None:
        return "function_call" if self._legacy and reason == "tool_calls" else reason

    def _choice(self, at: int) -> JSON:
        reader = self._readers[at]
        message: JSON = {"role": "assistant", "content": reader.content, "refusal": None}
        if reader.calls:
            message["content"] = reader.content or None
            called = [_call(call.id, call.name, call.arguments) for call in reader.calls]
            message |= {"function_call": called[0]["function"]} if self._legacy else {"tool_calls": called}
        return {"message": message | _thoughts(self._reasoning[at])}

    def pieces(self, event: TextEvent) -> list[JSON]:
        reader = self._readers[event.index]
        deltas = self._deltas(reader.push(event.text))
        if event.reasoning or event.logprobs:
            first = deltas.pop(0) if deltas and "content" in deltas[0] else {}
            deltas.insert(0, first | _thoughts(event.reasoning))
        logprobs = [self._of(event.index, event.logprobs), *[None] * len(deltas)]
        return [self._chunk(event.index, {"delta": delta}, logprobs[at], None) for at, delta in enumerate(deltas)]

    def ends(self, event: AnswerEnd) -> list[JSON]:
        reader = self._readers[event.index]
        chunks = [self._chunk(event.index, {"delta": delta}, None, None) for delta in self._deltas(reader.flush())]
        return [*chunks, self._chunk(event.index, {"delta": {}}, None, self._finished(reader.finish(event.finish_reason)))]

    def _deltas(self, parts: Sequence[str | CallDelta]) -> list[JSON]:
        """One for each part: a call's id and name come with its first alone."""
        found: list[JSON] = []
        for part in parts:
            if isinstance(part, str):
                found.append({"content": part})
            elif self._legacy:
                named = {"name": part.name} if part.name else {}
                found.append({"function_call": {**named, "arguments": part.arguments}})
            elif part.name:
                found.append({"tool_calls": [{"index": part.index, **_call(part.id, part.name, "")}]})
            else:
                found.append({"tool_calls": [{"index": part.index, "function": {"arguments": part.arguments}}]})
        return found

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

    def __init__(
        self,
        planned: PlannedRequest,
        tokenizer: TextTokenizer,
        logprobs: bool,
    ):
        super().__init__(planned, tokenizer, logprobs)
        self._special = {n: text for text, n in tokenizer.special_ids.items()} if logprobs else {}
        self._offsets = [TextOffsets(tokenizer, run, self._special) for run in planned.runs]

    def _choice(self, at: int) -> JSON:
        return {"text": self._texts[at]}

    def pieces(self, event: TextEvent) -> list[JSON]:
        return [self._chunk(event.index, {"text": event.text}, self._of(event.index, event.logprobs), None)]

    def ends(self, event: AnswerEnd) -> list[JSON]:
        return [self._chunk(event.index, {"text": ""}, None, event.finish_reason)]

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


def _call(id: str, name: str, arguments: str) -> JSON:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


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
