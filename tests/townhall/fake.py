"""Townhall's own double with what only tests want: answers from a list or a function, failures among them, and a record of every prompt."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from townhall.fake.fake_model import (
    CHATML,
    SPECIALS,
    FakeBackend,
    FakeCache,
    FakeGeneration,
    FakeModel,
    FakeOverflow,
    FakeStats,
    FakeTokenizer,
    ScriptedReply,
)

__all__ = ["CHATML", "SPECIALS", "FakeBackend", "FakeCache", "FakeGeneration", "FakeLlama", "FakeOverflow", "FakeStats", "FakeTokenizer"]

Script = Sequence[str | BaseException]  # an answer in tokens; an exception among them is raised when its turn comes


@dataclass(frozen=True)
class FailingLine(ScriptedReply):
    """What to raise in place of the token at a position."""

    failures: Mapping[int, BaseException] = field(default_factory=dict)


class FailingGeneration(FakeGeneration):
    """Fails where its line says so."""

    def _token(self, n: int) -> int | None:
        failures = self._line.failures if isinstance(self._line, FailingLine) else {}
        if n in failures:
            raise failures[n]
        return super()._token(n)


class FakeLlama(FakeModel):
    """Answers from `script`: a list that is used up (and begins again) or a function of the prompt's text."""

    generation = FailingGeneration

    def __init__(
        self,
        script: Sequence[str | Script] | Callable[[str], str | Script] = ("Fine, thanks.",),
        max_context: int = 1024,
        tokenizer: FakeTokenizer | None = None,
    ):
        super().__init__(self._line, max_context, tokenizer)
        self.answers = script
        self.prompts: list[list[int]] = []  # of every generation
        self.stop_ids: frozenset[int] | None = None
        self.computed = 0  # tokens that went through the "model"

    def prefill(self, ids: list[int], cache: FakeCache, on_progress: Callable[[int, int], None] | None = None) -> FakeStats:
        stats = super().prefill(ids, cache, on_progress)
        self.computed += stats.prompt_tokens - stats.cached_tokens
        return stats

    def generate(
        self,
        ids: list[int],
        max_tokens: int,
        sampling: Any = None,
        cache: FakeCache | None = None,
        stop_ids: frozenset[int] | None = None,
    ) -> FakeGeneration:
        if len(ids) <= self.max_context:
            self.prompts.append(list(ids))
            self.stop_ids = stop_ids
        return super().generate(ids, max_tokens, sampling, cache, stop_ids)

    def _line(self, prompt: str) -> ScriptedReply:
        said = self.answers(prompt) if callable(self.answers) else self.answers[(len(self.prompts) - 1) % len(self.answers)]
        if isinstance(said, str):
            return ScriptedReply(said)
        failures = {n: word for n, word in enumerate(said) if isinstance(word, BaseException)}
        return FailingLine(tokens=tuple("</s>" if isinstance(word, BaseException) else word for word in said), failures=failures)
