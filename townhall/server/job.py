"""One request as a generator of passes, so that many requests can take turns on one engine, and the events it emits."""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.models.llama.logits_processors import Grammar, LogitsProcessors, SamplerChain, TokenLogprob
from app.models.llama.sampling_params import SamplingParams
from app.models.llama.sequence_breakers import NO_BREAKERS, SequenceBreakers
from townhall.answer import Answer
from townhall.answer_loop import AnswerLoop
from townhall.context.strategy import ContextStrategy
from townhall.language_model import LanguageModel, TokenStream
from townhall.prompt import Prompt
from townhall.prompt_builder import settle_cache
from townhall.server.errors import APIError
from townhall.server.prompt_logprobs import UnscoredToken, score
from townhall.server.slots import Adapters, Lane, PrefixLookup, Slot, SlotRequest
from townhall.via.answering import SentFigures


@dataclass(frozen=True)
class TextEvent:
    """More of an answer; `logprobs` are what was asked to be known of the ids that are shown whole now. An echoed prompt is one, too."""

    index: int
    text: str
    logprobs: Sequence[TokenLogprob | UnscoredToken] = ()
    reasoning: str = ""  # more of what is thought before the answer


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
    sent: Sequence[SentFigures] = ()  # for each answer, where another server's model gave them
    away: str = ""  # why that did not, and the local one did


@dataclass(frozen=True)
class JobDone:
    """All answers are complete."""

    figures: RequestFigures


@dataclass(frozen=True)
class JobFailed:
    """Nothing more comes."""

    error: APIError


Event = TextEvent | AnswerEnd | JobDone | JobFailed


@dataclass(frozen=True, eq=False)
class AnswerRequest:
    """One answer to be made."""

    index: int
    prompt: Prompt
    ids: Sequence[int]
    sampling: SamplingParams
    max_tokens: int
    stop: Sequence[str]
    stop_ids: frozenset[int]
    logits_processors: LogitsProcessors = LogitsProcessors()
    breakers: SequenceBreakers = NO_BREAKERS
    grammar: Callable[[], Grammar] | None = None
    top: int | None = None  # top log-probabilities to report at each; None: none
    trim: bool = True
    separate: bool = False  # thoughts from the answer
    think_tokens: int | None = None  # of thoughts, at most
    tags: Mapping[int, str] = field(default_factory=dict)  # control tokens that count as text
    opening: str = ""  # what of the answer stands in the prompt already
    begun: Sequence[int] = ()  # the same as ids, where it is to be a part of the answer
    strategy: ContextStrategy | None = None
    pinned: int = 0
    removed: tuple[int, int] | None = None
    before: Sequence[int] = ()
    once: bool = False  # nothing says that the conversation goes on
    adapters: Adapters = ()
    text: str = ""  # the prompt as a completion's request has it
    echo: bool = False  # that comes first in the answer
    after: Callable[[str, Sequence[int]], None] | None = None  # called with the answer and its ids, where a client waited for it
    record: Callable[[Answer, str | None, int], None] | None = None  # called with it, why it ended (None: it was cut short) and the seed

    @property
    def scored(self) -> bool:
        """Are the prompt's own log-probabilities asked for?"""
        return self.echo and self.top is not None


@dataclass
class Job:
    """Runs one after another in one slot. `emit` is called on the engine's thread, `cancel` from anywhere."""

    runs: Sequence[AnswerRequest]
    emit: Callable[[Event], None]
    remember: Callable[[str, Sequence[int]], None]
    lane: Lane = "chat"
    deadline: float = float("inf")  # by time.monotonic
    arrived: float = field(default_factory=time.monotonic)
    cancelled: bool = False
    done: bool = False
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    decode_seconds: float = 0.0
    first_seconds: float | None = None
    seeds: list[int] = field(default_factory=list)
    lookups: list[PrefixLookup] = field(default_factory=list)  # of its prompts in the caches
    scored: Sequence[TokenLogprob | UnscoredToken] = ()  # of the last prompt that was echoed
    over: Callable[[], object] = lambda: None  # called on the engine's thread when nothing more comes, whatever the reason

    _loop: AnswerLoop[TextEvent | None] | None = None  # of the answer that is being made

    @property
    def reading(self) -> bool:
        """Is its next step a piece of a prompt, or what comes before?"""
        return self._loop is None or self._loop.reading

    @property
    def upcoming(self) -> Any:
        """What the next step needs computed, where a pass that others share can do it; else None."""
        return self._loop.upcoming if self._loop else None

    @property
    def wanted(self) -> SlotRequest:
        """What the first run asks of a slot."""
        run = self.runs[0]
        ids = () if run.scored else run.ids  # what a cache holds is of no use where every position's logits are asked for
        return SlotRequest(ids, run.pinned, self.lane, run.before, run.once, run.adapters)

    def cancel(self) -> None:
        """Stop at the next turn."""
        self.cancelled = True

    def steps(self, llama: LanguageModel, slot: Slot) -> Generator[None, None, None]:
        """Do everything, a pass over the model at a time; events go to `emit`."""
        for run in self.runs:
            if run.strategy:
                settle_cache(run.strategy, slot.cache, run.removed, run.before)
            yield from self._answer(run, llama, slot)
        self.done = True
        self.emit(JobDone(self.figures))

    @property
    def figures(self) -> RequestFigures:
        """What it took until now."""
        return RequestFigures(
            self.prompt_tokens, self.cached_tokens, self.completion_tokens, self.first_seconds, self.decode_seconds, tuple(self.seeds)
        )

    def _answer(self, run: AnswerRequest, llama: LanguageModel, slot: Slot) -> Generator[None, None, None]:
        grammar = run.grammar() if run.grammar else None
        sampler = SamplerChain(run.sampling, run.logits_processors, len(run.ids), grammar, run.top, run.breakers)
        self.seeds.append(sampler.seed)
        first = all(run.ids is not earlier.ids for earlier in self.runs[: self.runs.index(run)])
        if run.scored and first:
            self.scored = yield from score(llama, run.ids, run.top or 0, slot.cache)
        if run.echo:
            self._emit_text(TextEvent(run.index, run.text, self.scored if run.scored else ()))
        if first:
            self.prompt_tokens += len(run.ids)
        if run.echo and not run.max_tokens:  # nothing is to follow, so the prompt need not be read
            self.emit(AnswerEnd(run.index, "length"))
            return
        answer = Answer(llama, run.prompt, run.stop, run.trim, run.begun, run.separate, run.think_tokens, run.tags)
        streamed = StreamedAnswer(run, answer, sampler.logprobs)

        def generate() -> TokenStream:
            return llama.generate(list(run.ids), run.max_tokens, sampler, cache=slot.cache, stop_ids=run.stop_ids)

        loop = AnswerLoop(llama, run.ids, slot.cache, generate, streamed)
        if first:
            self.cached_tokens += loop.cached
        if first and not run.scored:
            self.lookups.append(PrefixLookup(slot.source, len(run.ids), loop.cached))
            slot.source = "conversation"  # of the next prompt in this slot
        completed, decoded, steps = self.completion_tokens, self.decode_seconds, loop.steps()
        self._loop = loop
        try:
            for said in steps:
                self.completion_tokens, self.decode_seconds = completed + loop.tokens, decoded + loop.push_seconds
                if said:
                    self._emit_text(said)
                if not loop.finish and not streamed.stopped:
                    yield
        finally:
            self._loop = None
            steps.close()
            if run.record:
                run.record(answer, loop.finish, sampler.seed)
            if not loop.reading and not run.opening and run.trim:
                ids = answer.kept_ids(loop.finish)
                self.remember(answer.shown, ids)
                if run.after and loop.finish and self.lane == "chat":
                    run.after(answer.shown, ids)
        self.emit(AnswerEnd(run.index, loop.finish or "stop"))

    def _emit_text(self, said: TextEvent) -> None:
        if self.first_seconds is None:
            self.first_seconds = time.monotonic() - self.arrived
        self.emit(said)


class StreamedAnswer:
    """An answer with log-probabilities of its tokens, each reported with the text that shows it whole."""

    def __init__(self, run: AnswerRequest, answer: Answer, logprobs: Sequence[TokenLogprob]):
        self._run, self.answer, self._logprobs = run, answer, logprobs
        self._reported = 0  # log-probabilities

    @property
    def stopped(self) -> bool:
        return self.answer.stopped

    def push(self, token: int) -> TextEvent | None:
        """What a sampled id adds."""
        return self._said(self.answer.push(token))

    def flush(self) -> TextEvent | None:
        """What was held back to the end, and what is known of ids that no text shows, such as half a character."""
        return None if self.answer.stopped else self._said(self.answer.flush(), last=True)

    def interject(self) -> Sequence[int]:
        """As the answer's."""
        return self.answer.interject()

    def _said(self, text: str, last: bool = False) -> TextEvent | None:
        reasoning = self.answer.new_reasoning()
        if self._run.top is None:
            return TextEvent(self._run.index, text, reasoning=reasoning) if text or reasoning else None
        start, end = max(self._reported, self.answer.first), len(self.answer.ids) if last else self.answer.whole
        if last and self._run.echo:
            end = len(self._logprobs)  # the end token's, too: who scores a prompt counts on one entry more than it has tokens
        if not text and not reasoning and not (last and end > start):
            return None
        self._reported = end
        return TextEvent(self._run.index, text, tuple(self._logprobs[start:end]), reasoning)
