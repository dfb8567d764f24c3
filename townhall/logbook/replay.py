"""A kept conversation, gone through again: the same prompts, the same seeds, and every sampled id held against the log's."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from townhall.conversation import Conversation
from townhall.errors import LogError
from townhall.facade import LanguageModel
from townhall.logbook.reading import Log, Turn
from townhall.logbook.recorder import WatchedModel, prompt_hash


@dataclass(frozen=True)
class Difference:
    """Where a reply stopped being the log's. `position` counts its tokens from 0; None: the prompt itself is another one."""

    reply: int  # from 1
    line: int
    position: int | None
    expected: int | None = None  # None: the log's reply ends here
    got: int | None = None  # None: this run's reply ends here


@dataclass(frozen=True)
class Outcome:
    """How far the replies were the same."""

    replies: int
    tokens: int
    difference: Difference | None = None


@dataclass(frozen=True)
class Expected:
    """A reply as the log has it."""

    number: int
    line: int
    prompt_sha256: str
    ids: list[int]
    interrupted: bool
    sampler: dict[str, Any]


class Different(Exception):
    """The first token that differs ends a replay."""

    def __init__(self, difference: Difference):
        super().__init__(difference)
        self.difference = difference


class LoggedInterrupt(KeyboardInterrupt):
    """Ctrl-C, as it came in the log."""


class RehearsedModel(WatchedModel):
    """The model, held to `expected` whenever that is set; what it does of its own (memories) is left alone."""

    def __init__(self, llama: LanguageModel):
        super().__init__(llama)
        self.expected: Expected | None = None

    def generate(
        self, ids: list[int], max_tokens: int, sampling: Any = None, cache: Any = None, stop_ids: frozenset[int] | None = None
    ) -> Any:
        if self.expected and prompt_hash(ids) != self.expected.prompt_sha256:
            raise Different(Difference(self.expected.number, self.expected.line, None))
        generation = self._llama.generate(ids, max_tokens, sampling, cache=cache, stop_ids=stop_ids)
        return RehearsedGeneration(generation, self.expected) if self.expected else generation


class RehearsedGeneration(Iterator[int]):
    """Ids as long as they are the log's."""

    def __init__(self, generation: Any, expected: Expected):
        self._generation, self._ids, self._expected, self._at = generation, iter(generation), expected, 0

    def __next__(self) -> int:
        expected, at = self._expected.ids, self._at
        if self._expected.interrupted and at == len(expected):
            raise LoggedInterrupt
        token = next(self._ids, None)
        wanted = expected[at] if at < len(expected) else None
        if token != wanted:
            raise Different(Difference(self._expected.number, self._expected.line, at, wanted, token))
        if token is None:
            raise StopIteration
        self._at += 1
        return token

    def __getattr__(self, name: str) -> Any:
        return getattr(self._generation, name)


def replay(log: Log, model: RehearsedModel, conversation: Conversation, told: Callable[[Outcome], None] = lambda outcome: None) -> Outcome:
    """Go through every reply that has a receipt, up to the first that differs; `told` hears of each that is the same.

    `conversation` must be fresh, and over `model`. LogError for a receipt that lacks what it takes.
    """
    from app.models.llama.sampling import Sampling

    outcome = Outcome(0, 0)
    for question, reply in pairs(log):
        model.expected = expected = _expected(reply, outcome.replies + 1, log)
        if question.after_reset:
            conversation.reset()
        try:
            conversation.sampling = Sampling(**expected.sampler)
        except TypeError as error:
            raise _unreadable(log, reply) from error
        try:
            for _ in conversation.reply(question.text):
                pass
        except LoggedInterrupt:
            pass
        except Different as found:
            return Outcome(outcome.replies, outcome.tokens, found.difference)
        model.expected = None
        if not expected.interrupted:
            conversation.after_reply()
        outcome = Outcome(outcome.replies + 1, outcome.tokens + len(expected.ids))
        told(outcome)
    return outcome


def pairs(log: Log) -> list[tuple[Turn, Turn]]:
    """Questions and the answers that have a receipt. A question without one is passed over: the conversation did not keep it either."""
    turns, began_anew, found = log.turns, False, []
    for at, turn in enumerate(turns):
        began_anew = began_anew or turn.after_reset
        answer = turns[at + 1] if at + 1 < len(turns) else None
        if turn.role == "user" and answer and answer.role == "assistant" and answer.facts is not None:
            found.append((Turn(turn.name, turn.role, turn.text, turn.line, turn.facts, began_anew), answer))
            began_anew = False
    return found


def _expected(reply: Turn, number: int, log: Log) -> Expected:
    facts = reply.facts or {}
    ids, sampler, prompt = facts.get("tokens"), facts.get("sampler"), facts.get("prompt_sha256")
    numbers = (int, float)
    if not isinstance(ids, list) or not all(type(token) is int for token in ids) or not isinstance(prompt, str):
        raise _unreadable(log, reply)
    whole = ("top_k", "repeat_last_n", "seed")
    if not isinstance(sampler, dict) or not all(type(value) in ((int,) if key in whole else numbers) for key, value in sampler.items()):
        raise _unreadable(log, reply)
    return Expected(number, reply.line, prompt, ids, facts.get("finish_reason") == "interrupted", sampler)


def _unreadable(log: Log, reply: Turn) -> LogError:
    return LogError(
        f"log {log.path}, line {reply.line}: the receipt of this reply lacks what it takes to repeat it (tokens, sampler, prompt_sha256)"
    )
