"""A language model wrapper that records prompts, sampling parameters and sampled ids."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from townhall.language_model import LanguageModel, PrefillFigures, Progress, TokenStream


@dataclass
class RecordedRun:
    """One generation: its prompt, how ids were drawn, and the ids so far."""

    prompt: list[int]
    sampling: Any  # app.models.llama.SamplingParams, its seed settled
    ids: list[int] = field(default_factory=list)


class WatchedModel:
    """Another model's stand-in: everything is the model's own, but for `generate`, which a subclass looks at."""

    def __init__(self, llama: LanguageModel):
        self._llama = llama

    @property
    def device(self) -> str:
        return self._llama.device

    @property
    def max_context(self) -> int:
        return self._llama.max_context

    @property
    def tokenizer(self) -> Any:
        return self._llama.tokenizer

    def new_cache(self) -> Any:
        return self._llama.new_cache()

    def score(self, ids: list[int], cache: Any) -> Iterator[Any]:
        return self._llama.score(ids, cache)

    def hidden(self, ids: list[int], cache: Any) -> Iterator[Any]:
        return self._llama.hidden(ids, cache)

    def prefill(self, ids: list[int], cache: Any, on_progress: Progress | None = None) -> PrefillFigures:
        return self._llama.prefill(ids, cache, on_progress)

    def pass_tokens(self, tokens: int, cache: Any) -> int:
        return self._llama.pass_tokens(tokens, cache)


class RecordedModel(WatchedModel):
    """`run` is the generation that was begun last. A seed that was not chosen is drawn here."""

    def __init__(self, llama: LanguageModel):
        super().__init__(llama)
        self.run: RecordedRun | None = None

    def generate(
        self, ids: list[int], max_tokens: int, sampling: Any = None, cache: Any = None, stop_ids: frozenset[int] | None = None
    ) -> Any:
        if sampling.seed is None:
            sampling = replace(sampling, seed=int.from_bytes(os.urandom(4), "little"))
        run = self.run = RecordedRun(list(ids), sampling)
        return RecordedGeneration(self._llama.generate(ids, max_tokens, sampling, cache=cache, stop_ids=stop_ids), run)


class RecordedGeneration(Iterator[int]):
    """The generation, and every id that comes out of it written down."""

    def __init__(self, generation: TokenStream, run: RecordedRun):
        self._generation, self._ids, self._run = generation, iter(generation), run

    def __next__(self) -> int:
        token = next(self._ids)
        self._run.ids.append(token)
        return token

    def __getattr__(self, name: str) -> Any:
        return getattr(self._generation, name)


def prompt_hash(ids: Sequence[int]) -> str:
    """SHA-256 of the ids, each as four bytes, the lowest first."""
    return hashlib.sha256(b"".join(token.to_bytes(4, "little") for token in ids)).hexdigest()
