"""A raw text carried on, without a persona."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from townhall.answer_loop import AnswerLoop
from townhall.language_model import LanguageModel, TextDecoder, TokenStream
from townhall.prompt_builder import cut_raw
from townhall.reply import Receipt, Reply

if TYPE_CHECKING:
    from app.models.llama import SamplingParams


class TextCompletion:
    """Iterate it for the text as it is sampled; `last` has the figures afterwards.

    A prompt longer than the window loses its beginning, and the receipt says so; under `stop` it is refused. `cache` is one of
    `llama`'s that may hold an earlier prompt: what the two begin with in common is not read again.
    """

    def __init__(
        self, llama: LanguageModel, prompt: str, sampling: "SamplingParams", max_tokens: int, context: str = "slide", cache: Any = None
    ):
        self.llama, self.sampling, self.max_tokens, self.context = llama, sampling, max_tokens, context
        self.cache = cache if cache is not None else llama.new_cache()
        tokenizer, capacity = llama.tokenizer, self.cache.capacity
        self.ids, self.dropped = cut_raw(tokenizer.encode(prompt), tokenizer.encode(""), capacity, max_tokens, context, most=capacity)
        self.last: Reply | None = None

    def __iter__(self) -> Generator[str, None, None]:
        plain = _PlainText(self.llama.tokenizer.stream(continued=True))

        def generate() -> TokenStream:
            return self.llama.generate(self.ids, self.max_tokens, self.sampling, cache=self.cache)

        loop = AnswerLoop(self.llama, self.ids, self.cache, generate, plain)
        steps, text = loop.steps(), ""
        try:
            for piece in steps:
                if piece:
                    text += piece
                    yield piece
        finally:
            steps.close()
            receipt = Receipt(self.context, self.cache.capacity, len(self.ids), 0, dropped_tokens=self.dropped)
            self.last = Reply(
                text=text,
                tokens=loop.tokens,
                prompt_tokens=len(self.ids),
                cached_tokens=loop.cached,
                finish_reason=loop.finish or "interrupted",
                prefill_seconds=loop.read_seconds + loop.generation.prefill_seconds,
                decode_seconds=loop.generation.decode_seconds,
                device=self.llama.device,
                receipt=receipt,
            )


@dataclass
class _PlainText:
    """Every character as it comes; no stop strings."""

    decoder: TextDecoder
    stopped: bool = False

    def push(self, token: int) -> str:
        return self.decoder.push(token)

    def flush(self) -> str:
        return ""

    def interject(self) -> Sequence[int]:
        return ()
