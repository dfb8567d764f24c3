"""Summaries of conversations that clients keep: written between their turns, found again by how a conversation begins."""

import hashlib
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from townhall.answer_loop import read
from townhall.context.strategy import ContextStrategy, Window, WindowPlan, fold_ahead
from townhall.context.summarizer import Summarizer
from townhall.language_model import LanguageModel
from townhall.message import Exchange, Message
from townhall.persona import Persona
from townhall.prompt import Prompt
from townhall.server.errors import APIError
from townhall.server.slots import Lane, Slot, SlotRequest, Slots
from townhall.transcript import PromptPlan, SummaryCheckpoint, plans

MOST_STANDINGS, MOST_WAITING, MOST_SCRIBES = 1024, 32, 16
AT_ONCE = 8  # exchanges: a conversation from before this server's start may have hundreds without notes


class SummaryCheckpoints:
    """The newest count; any thread may ask."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, SummaryCheckpoint] = OrderedDict()
        self._lock = threading.Lock()

    def recall(self, head: Sequence[int], exchanges: Sequence[Exchange]) -> SummaryCheckpoint | None:
        """Of the longest beginning of a conversation that stood before."""
        with self._lock:
            if not self._known:
                return None
            for key in reversed(list(_keys(head, exchanges))):
                if summary_checkpoint := self._known.get(key):
                    self._known.move_to_end(key)
                    return summary_checkpoint
        return None

    def keep(self, head: Sequence[int], exchanges: Sequence[Exchange], summary_checkpoint: SummaryCheckpoint) -> None:
        """How it stands after all of `exchanges`."""
        *_, key = _keys(head, exchanges)
        with self._lock:
            self._known[key] = summary_checkpoint
            self._known.move_to_end(key)
            if len(self._known) > MOST_STANDINGS:
                self._known.popitem(last=False)


def _keys(head: Sequence[int], exchanges: Sequence[Exchange]) -> Iterator[bytes]:
    """One for each beginning of a conversation."""
    key = hashlib.sha256(repr(tuple(head)).encode()).digest()
    for exchange in exchanges:
        said = repr((exchange.user.text, exchange.reply.text)).encode()
        yield (key := hashlib.sha256(key + said).digest())


@dataclass(eq=False)
class SummaryWork:
    """A piece of work for the scheduler: what the next turn would push out is written down, and the conversation's cache made ready for it.

    Works in the background lane's slot; no client waits for it, so no event is emitted.
    """

    summary_checkpoints: SummaryCheckpoints
    slots: Slots
    summarizer: Summarizer
    prompt: Prompt
    strategy: ContextStrategy
    window: Window
    exchanges: Sequence[Exchange]
    lane: Lane = "background"
    deadline: float = float("inf")
    cancelled: bool = False

    @property
    def wanted(self) -> SlotRequest:
        """The summarizer's instructions."""
        head = self.summarizer.prompt.head_ids
        return SlotRequest(head, len(head), self.lane)

    def emit(self, event: Any) -> None:
        """Nobody listens."""

    def steps(self, llama: LanguageModel, slot: Slot) -> Generator[None, None, None]:
        """Do it, a pass over the model at a time."""
        summary_checkpoint = self.summary_checkpoints.recall(self.prompt.head_ids, self.exchanges)
        *_, plan = plans(self.strategy, self.window, self.exchanges, summary_checkpoint)
        left, noted = len(self.exchanges) - len(plan.kept), summary_checkpoint.noted if summary_checkpoint else 0
        leaving = fold_ahead(self.window, plan, self.summarizer.bound)
        missed = self.exchanges[max(noted, left - AT_ONCE) : left]
        if not missed and left + len(leaving) <= noted:
            return
        fold = None
        writing = self.summarizer.steps(self.prompt, plan.memory, (*missed, *leaving), slot.cache)
        while fold is None:
            try:
                next(writing)
                yield
            except StopIteration as end:
                fold = end.value
        now = left + len(leaving)
        if fold.memory is None:
            self._keep(SummaryCheckpoint(len(self.exchanges), left, now, plan.memory))
            return
        self._keep(SummaryCheckpoint(len(self.exchanges), now, now, fold.memory))
        yield  # who asked before this was known takes the cache as it is
        yield from self._reread(llama, plan, WindowPlan(plan.kept[len(leaving) :], (), fold.memory))

    def _keep(self, summary_checkpoint: SummaryCheckpoint) -> None:
        self.summary_checkpoints.keep(self.prompt.head_ids, self.exchanges, summary_checkpoint)

    def _reread(self, llama: LanguageModel, before: WindowPlan, after: WindowPlan) -> Generator[None, None, None]:
        """The conversation's cache is brought to what its next prompt begins with, if no other request has taken it meanwhile."""
        if not self.prompt.format.turn_by_turn or (slot := self.slots.borrow(self.prompt.before(before))) is None:
            return
        give_back = self.slots.discard  # a cache in which a pass failed
        try:
            yield from read(llama, self.prompt.before(after), slot.cache)
            give_back = self.slots.give_back
        except GeneratorExit:  # between two passes
            give_back = self.slots.give_back
            raise
        finally:
            give_back(slot)


class SummaryStore:
    """One is written at a time; where many conversations wait for theirs, those that waited longest go without."""

    def __init__(
        self,
        llama: LanguageModel,
        format: str,
        slots: Slots,
        submit: Callable[[SummaryWork], object],
        checkpoints: SummaryCheckpoints | None = None,
    ):
        """`checkpoints` are those of an earlier start of the same model."""
        self.summary_checkpoints = checkpoints or SummaryCheckpoints()
        self._llama, self._format, self._slots, self._submit = llama, format, slots, submit
        self._scribes: OrderedDict[tuple[Persona, int], Summarizer] = OrderedDict()
        self._waiting: deque[Callable[[], SummaryWork]] = deque(maxlen=MOST_WAITING)
        self._current: SummaryWork | None = None
        self._closed = False
        self._lock = threading.RLock()

    def after(
        self, persona: Persona, prompt: Prompt, strategy: ContextStrategy, window: Window, prompt_plan: PromptPlan
    ) -> Callable[[str, Sequence[int]], None]:
        """What is to be called with an answer and its ids, once it is complete, on the thread that made it."""
        turn = prompt_plan.turn
        assert turn is not None

        def answered(text: str, ids: Sequence[int]) -> None:
            reply = Message(turn.id + 1, "assistant", text, (*ids, *prompt.close_ids), sampled=True)
            exchanges = (*prompt_plan.exchanges, Exchange(turn, reply))
            bound = window.memory_bound(strategy.memory)
            with self._lock:
                self._waiting.append(
                    lambda: SummaryWork(
                        self.summary_checkpoints, self._slots, self._summarizer(persona, bound), prompt, strategy, window, exchanges
                    )
                )
                self._next()

        return answered

    def finished(self, work: SummaryWork) -> None:
        """On the engine's thread: one is written, or it failed."""
        with self._lock:
            if work is self._current:
                self._current = None
                self._next()

    def close(self) -> None:
        """Write no more."""
        self._closed = True
        if current := self._current:
            current.cancelled = True

    def release(self) -> None:
        """The model leaves the memory; what was written down stays."""
        self.close()
        self._waiting.clear()
        self._scribes.clear()
        del self._llama, self._slots, self._submit

    def _next(self) -> None:
        if self._closed or self._current or not self._waiting:
            return
        self._current = self._waiting.popleft()()
        try:
            self._submit(self._current)
        except APIError:  # the queue is full, or the server about to end
            self._current = None

    def _summarizer(self, persona: Persona, bound: int) -> Summarizer:
        if (summarizer := self._scribes.pop((persona, bound), None)) is None:
            summarizer = Summarizer(self._llama, persona, self._format, bound)
            if len(self._scribes) >= MOST_SCRIBES:
                self._scribes.popitem(last=False)
        self._scribes[persona, bound] = summarizer
        return summarizer
