"""A raw text carried on, without a persona."""

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from townhall.context.receipt import Receipt
from townhall.errors import ContextError
from townhall.language_model import LanguageModel
from townhall.reply import Reply

if TYPE_CHECKING:
    from app.models.llama import SamplingParams


class TextCompletion:
    """Iterate it for the text as it is sampled; `last` has the figures afterwards.

    A prompt longer than the window loses its beginning under `slide`, and the receipt says so; `stop` refuses it. `cache` is one of
    `llama`'s that may hold an earlier prompt: what the two begin with in common is not read again.
    """

    def __init__(
        self, llama: LanguageModel, prompt: str, sampling: "SamplingParams", max_tokens: int, context: str = "slide", cache: Any = None
    ):
        self.llama, self.sampling, self.max_tokens, self.context = llama, sampling, max_tokens, context
        self.cache = cache if cache is not None else llama.new_cache()
        self.ids = llama.tokenizer.encode(prompt)
        self.dropped = self._cut() if len(self.ids) > self.cache.capacity else 0
        self.last: Reply | None = None

    def _cut(self) -> int:
        """Leave the newest tokens and room for an answer; BOS stays at the front."""
        length, capacity = len(self.ids), self.cache.capacity
        if self.context == "stop":
            raise ContextError(
                f"the prompt has {length} tokens and the window holds {capacity}, {length - capacity} fewer; "
                "shorten it, raise --max-context, or let its beginning go with --context slide",
                length,
                capacity,
            )
        bos = self.llama.tokenizer.encode("")
        room = capacity - len(bos) - max(1, min(self.max_tokens, capacity // 4))
        self.ids = [*bos, *self.ids[length - room :]]
        return length - len(self.ids)

    def __iter__(self) -> Generator[str, None, None]:
        decoder = self.llama.tokenizer.stream(continued=True)
        generation = self.llama.generate(self.ids, self.max_tokens, self.sampling, cache=self.cache)
        text, tokens, finish = "", 0, "interrupted"
        try:
            for token in generation:
                tokens += 1
                if piece := decoder.push(token):
                    text += piece
                    yield piece
            finish = generation.finish_reason or "stop"
        finally:
            generation.close()
            receipt = Receipt(self.context, self.cache.capacity, len(self.ids), 0, dropped_tokens=self.dropped)
            self.last = Reply(
                text=text,
                tokens=tokens,
                prompt_tokens=len(self.ids),
                cached_tokens=generation.cached_tokens,
                finish_reason=finish,
                prefill_seconds=generation.prefill_seconds,
                decode_seconds=generation.decode_seconds,
                device=self.llama.device,
                receipt=receipt,
            )
