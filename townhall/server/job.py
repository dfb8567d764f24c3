"""One request at work: a generator that does a piece of it at a time, so that many can take turns on one engine."""

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field

from app.models.llama.logits_processors import Grammar, LogitsProcessors, SamplerChain, TokenLogprob
from app.models.llama.sampling_params import SamplingParams
from townhall.answer import Answer
from townhall.context.strategy import ContextStrategy
from townhall.incremental_prefill import common_prefix, read
from townhall.language_model import LanguageModel
from townhall.prompt import Prompt
from townhall.server.job_events import AnswerEnd, Event, JobDone, RequestFigures, TextEvent
from townhall.server.slots import Lane, Slot, SlotRequest


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
    grammar: Callable[[], Grammar] | None = None
    top: int | None = None  # top log-probabilities to report at each; None: none
    trim: bool = True
    opening: str = ""  # what of the answer stands in the prompt already
    strategy: ContextStrategy | None = None
    pinned: int = 0
    removed: tuple[int, int] | None = None
    before: Sequence[int] = ()
    once: bool = False  # nothing says that the conversation goes on
    after: Callable[[str, Sequence[int]], None] | None = None  # called with the answer and its ids, where a client waited for it


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

    @property
    def wanted(self) -> SlotRequest:
        """What the first run asks of a slot."""
        run = self.runs[0]
        return SlotRequest(run.ids, run.pinned, self.lane, run.before, run.once)

    def cancel(self) -> None:
        """Stop at the next turn."""
        self.cancelled = True

    def steps(self, llama: LanguageModel, slot: Slot) -> Generator[None, None, None]:
        """Do everything, a pass over the model at a time; events go to `emit`."""
        for run in self.runs:
            self._settle(run, slot)
            yield from self._read(run, llama, slot)
            yield from self._write(run, llama, slot)
        self.done = True
        self.emit(JobDone(self.figures))

    @property
    def figures(self) -> RequestFigures:
        """What it took until now."""
        return RequestFigures(
            self.prompt_tokens, self.cached_tokens, self.completion_tokens, self.first_seconds, self.decode_seconds, tuple(self.seeds)
        )

    def _settle(self, run: AnswerRequest, slot: Slot) -> None:
        held = slot.cache.tokens
        if run.removed and run.strategy:
            stop = run.removed[1]
            in_place = common_prefix(held, run.before) >= stop
            run.strategy.settle(slot.cache, run.removed if in_place else None)

    def _read(self, run: AnswerRequest, llama: LanguageModel, slot: Slot) -> Generator[None, None, None]:
        if all(run.ids is not earlier.ids for earlier in self.runs[: self.runs.index(run)]):
            self.prompt_tokens += len(run.ids)
            self.cached_tokens += min(common_prefix(slot.cache.tokens, run.ids), len(run.ids) - 1)
        yield from read(llama, run.ids, slot.cache)

    def _write(self, run: AnswerRequest, llama: LanguageModel, slot: Slot) -> Generator[None, None, None]:
        sampler = SamplerChain(run.sampling, run.logits_processors, len(run.ids), run.grammar() if run.grammar else None, run.top)
        self.seeds.append(sampler.seed)
        generation = llama.generate(list(run.ids), run.max_tokens, sampler, cache=slot.cache, stop_ids=run.stop_ids)
        speech = StreamedAnswer(run, Answer(llama, run.prompt, run.stop, run.trim), sampler.logprobs)
        finish = None
        try:
            started = time.perf_counter()
            for token in generation:
                self.completion_tokens += 1
                said = speech.push(token)
                self.decode_seconds += time.perf_counter() - started
                if said:
                    self._tell(said)
                if speech.answer.stopped:
                    finish = "stop"
                    break
                yield
                started = time.perf_counter()
            else:
                finish = str(generation.finish_reason or "stop")
            if said := speech.flush():
                self._tell(said)
        finally:
            generation.close()
            if not run.opening and run.trim:
                whole = finish == "stop" and not speech.answer.stopped
                ids = speech.answer.ids if whole else speech.answer.shown_ids()
                self.remember(speech.answer.shown, ids)
                if run.after and finish and self.lane == "chat":
                    run.after(speech.answer.shown, ids)
        self.emit(AnswerEnd(run.index, finish))

    def _tell(self, said: TextEvent) -> None:
        if self.first_seconds is None:
            self.first_seconds = time.monotonic() - self.arrived
        self.emit(said)


class StreamedAnswer:
    """An answer with log-probabilities of its tokens, each reported with the text that shows it whole."""

    def __init__(self, run: AnswerRequest, answer: Answer, logprobs: Sequence[TokenLogprob]):
        self._run, self.answer, self._logprobs = run, answer, logprobs
        self._info = 0

    def push(self, token: int) -> TextEvent | None:
        """What a sampled id adds."""
        return self._said(self.answer.push(token))

    def flush(self) -> TextEvent | None:
        """What was held back to the end, and what is known of ids that no text shows, such as half a character."""
        return None if self.answer.stopped else self._said(self.answer.flush(), last=True)

    def _said(self, text: str, last: bool = False) -> TextEvent | None:
        if self._run.top is None:
            return TextEvent(self._run.index, text) if text else None
        start, end = self._info, len(self.answer.ids) if last else self.answer.whole
        if not text and not (last and end > start):
            return None
        self._info = end
        return TextEvent(self._run.index, text, tuple(self._logprobs[start:end]))
