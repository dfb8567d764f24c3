"""One thread that owns the engine: requests take turns on it, a pass over the model at a time, and share passes where the model can."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from app.models.llama.pass_sizes import LONGEST
from townhall.language_model import LanguageModel, SharesPasses
from townhall.server.engine_turns import EngineTurns
from townhall.server.errors import APIError, as_api_error, shutting_down
from townhall.server.event_delivery import EventDelivery
from townhall.server.job import Event, JobFailed
from townhall.server.slots import Lane, Slot, SlotRequest, Slots

log = logging.getLogger("townhall.server")
BACKGROUND_TURN = 4  # while chats are active, the background lane has one round in so many
NO_GUESSES = 4  # conversations from which on a pass has better things to compute than guesses
PATIENCE = 0.06  # seconds that a piece of a prompt should take at most while others wait for their next token; LONGEST while none does


class Work(Protocol):
    """What can be done a pass over the model at a time."""

    lane: Lane
    deadline: float  # by time.monotonic
    cancelled: bool

    @property
    def wanted(self) -> SlotRequest: ...
    @property
    def emit(self) -> Callable[[Event], None]: ...
    def steps(self, llama: LanguageModel, slot: Slot) -> Generator[None, None, None]: ...


@runtime_checkable
class Batchable(Protocol):
    """Work whose next step may be computed with those of others."""

    @property
    def reading(self) -> bool: ...  # is its next step a piece of a prompt, or what comes before
    @property
    def upcoming(self) -> Any: ...  # what SharesPasses.compute_ahead takes; None where the next step has passes of its own


@dataclass
class PassCount:
    """Passes that computed next tokens, and how many tokens."""

    passes: int = 0
    rows: int = 0

    def add(self, rows: int) -> None:
        self.passes += 1
        self.rows += rows


@dataclass(eq=False)
class Active:
    """A job that has its slot."""

    job: Work
    slot: Slot
    steps: Generator[None, None, None]
    read: int = 0  # tokens of its prompt, in pieces
    turn: int = 0  # the last round in which it had a step
    batchable: Batchable | None = None  # the job, if it is; asked once, for Python takes its time over a protocol

    def __post_init__(self) -> None:
        self.batchable = self.job if isinstance(self.job, Batchable) else None

    @property
    def upcoming(self) -> Any:
        return self.batchable.upcoming if self.batchable else None


class Scheduler:
    """`submit` from any thread; everything else, loading the model included, happens on the scheduler's own.

    Each round gives every active job one step: a chunk of a prompt, or a token. Where the model computes the next tokens of many in one
    pass, a round is one such pass and one piece of a prompt: that of which least has been read, so that a long one keeps no short one
    waiting, and every next token is late by that piece at most. A job that fails takes its cache with it and nothing else.
    """

    def __init__(self, max_queue: int, turns: EngineTurns | None = None, passes: PassCount | None = None):
        """`turns` are shared with the schedulers of other models in this process; `passes` counts on, if it is there."""
        self.max_queue, self.turns, self.passes = max_queue, turns or EngineTurns(), passes or PassCount()
        self.delivery = EventDelivery()  # makes what jobs emit through
        self._waiting: deque[Work] = deque()
        self._active: list[Active] = []
        self._changed = threading.Condition()
        self._closing = False
        self._ends = float("inf")  # when jobs must have ended, by time.monotonic
        self._rounds = 0
        self._llama: LanguageModel | None = None
        self._sharing: SharesPasses | None = None  # the same, if it computes next tokens of several in one pass
        self.slots: Slots | None = None
        self._thread: threading.Thread | None = None
        self.finished: Callable[[Work], Any] = lambda job: None  # called with each job, on the engine's thread
        self.idle: Callable[[], Any] = lambda: None  # called on the same thread when there is nothing left to do

    def start(self, load: Callable[[], tuple[LanguageModel, Slots]], failed: Callable[[BaseException], Any]) -> None:
        """Load on the engine's thread, then serve; `failed` is called, on that thread, with the error."""

        def run() -> None:
            try:
                with self.turns:
                    llama, slots = load()
                with self._changed:
                    self._llama, self.slots = llama, slots
                self._serve(llama, slots)
            except BaseException as error:
                failed(error)

        # a daemon, so that a pass which never ends cannot keep the process
        self._thread = threading.Thread(target=run, name="engine", daemon=True)
        self._thread.start()

    @property
    def ready(self) -> bool:
        return self.slots is not None

    @property
    def busy(self) -> bool:
        """Is there a job that waits, or has a slot?"""
        with self._changed:
            return bool(self._waiting or self._active)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def active(self) -> int:
        return len(self._active)

    def submit(self, job: Work) -> None:
        """Queue a job; APIError 429 where the queue is full, 503 where the server is about to end."""
        with self._changed:
            if self._closing:
                raise shutting_down()
            most = self.slots.lane_most(job.lane) if self.slots else 1
            ahead = sum(other.lane == job.lane for other in (*self._waiting, *(active.job for active in self._active)))
            if ahead >= self.max_queue + most:  # a job that finds a free slot only waits for the round to end
                raise APIError(
                    429,
                    f"{ahead - most} requests are waiting already; try again later",
                    code="queue_full",
                    retry_after=min(30, 1 + ahead // most),
                )
            self._waiting.append(job)
            self._changed.notify()

    def wake(self) -> None:
        """Look at the jobs again: one was cancelled."""
        with self._changed:
            self._changed.notify()

    def drain(self, seconds: float) -> None:
        """Take no more; what is not done in `seconds` is ended with an error."""
        with self._changed:
            self._closing = True
            self._ends = min(self._ends, time.monotonic() + seconds)
            self._changed.notify()

    def join(self, seconds: float) -> None:
        """Wait for the thread to end, after `drain`."""
        if self._thread:
            self._thread.join(seconds)

    def _serve(self, llama: LanguageModel, slots: Slots) -> None:
        sharing = self._sharing = llama if isinstance(llama, SharesPasses) and llama.most_rows else None
        if isinstance(llama, SharesPasses):
            self.delivery.offer_cores = llama.offer_cores
        while True:
            with self._changed:
                if not (self._waiting or self._active):
                    self.idle()
                while not (self._waiting or self._active or self._closing):
                    self._changed.wait()
                if self._closing and not (self._waiting or self._active):
                    return
                waiting = list(self._waiting)
            with self.turns, self.delivery.keeping():
                # making a cache takes its time, and submitters would wait for the lock
                admitted, stay = self._admit(slots, waiting)
                with self._changed:  # at no moment is a job neither waiting nor active
                    newer = list(self._waiting)[len(waiting) :]
                    self._active += [Active(job, slot, self._steps(llama, slots, job, slot)) for job, slot in admitted]
                    self._waiting = deque([*stay, *newer])
                del admitted
                self._round(sharing, slots)

    def _steps(self, llama: LanguageModel, slots: Slots, job: Work, slot: Slot) -> Generator[None, None, None]:
        """What a slot needs before it is used, in parts while others wait for their next token; then the job."""
        wanted = job.wanted
        if self._sharing:
            while not self._sharing.make_ready(slot.cache, len(wanted.ids), self._sharing.patience or LONGEST):
                yield
        slots.settle(slot, wanted)
        if slot.source != "conversation":
            yield
        yield from job.steps(llama, slot)

    def _admit(self, slots: Slots, waiting: Sequence[Work]) -> tuple[list[tuple[Work, Slot]], list[Work]]:
        """(jobs that found a slot, those that go on waiting), in their order within a lane; a job whose client has gone is dropped."""
        admitted: list[tuple[Work, Slot]] = []
        stay: list[Work] = []
        full = set[str]()
        for job in waiting:
            if self._over(job) or job.cancelled:
                self._end(job)
            elif job.lane in full:
                stay.append(job)
            elif slot := self._slot(slots, job):
                admitted.append((job, slot))
            elif not job.cancelled:
                full.add(job.lane)
                stay.append(job)
        return admitted, stay

    def _slot(self, slots: Slots, job: Work) -> Slot | None:
        """A slot, if one is free; a job for which none can be made is cancelled."""
        try:
            return slots.take(job.wanted)
        except Exception as error:  # memory for one more cache, say
            self._fail(job, error)
            job.cancelled = True
            return None

    def _round(self, sharing: SharesPasses | None, slots: Slots) -> None:
        self._rounds += 1
        for active in [active for active in self._active if active.job.cancelled or self._over(active.job)]:
            active.steps.close()
            self._leave(slots, active)
            self._end(active.job)
        chats = any(active.job.lane == "chat" for active in self._active)
        turns = [a for a in self._active if a.job.lane == "chat" or not chats or self._rounds % BACKGROUND_TURN == 0]
        if sharing:
            self._share(sharing, slots, turns)
        else:
            for active in turns:
                self._step_alone(slots, active)

    def _step_alone(self, slots: Slots, active: Active) -> None:
        """A step with a pass of its own, counted if it is one for the next token."""
        if active.batchable and not active.batchable.reading:
            self.passes.add(1)
        self.delivery.deliver()
        self._step(slots, active)

    def _share(self, llama: SharesPasses, slots: Slots, turns: Sequence[Active]) -> None:
        """One pass for the next tokens of all that have come to that, the longest waiting first, and one piece of a prompt."""
        upcoming = {active: wanted for active in turns if (wanted := active.upcoming) is not None}
        if len(upcoming) >= NO_GUESSES:
            upcoming = {active: wanted.alone for active, wanted in upcoming.items()}
        own = [active for active in turns if active not in upcoming]
        reading = [active for active in own if active.batchable is None or active.batchable.reading]
        for active in own:
            if active not in reading:  # it answers through adapters that no passes are ready for, say
                self._step_alone(slots, active)
        if reading:
            llama.patience = PATIENCE if upcoming else LONGEST
            active = min(reading, key=lambda active: (active.job.lane != "chat", active.read))
            held = len(active.slot.cache.tokens)
            self._step_alone(slots, active)
            active.read += max(1, len(active.slot.cache.tokens) - held)
        rows, together = 0, list[Active]()
        for active in sorted(upcoming, key=lambda active: active.turn):
            wanted = upcoming[active]
            if together and not llama.together(wanted, upcoming[together[0]]):
                continue  # adapters that are not laid out by row: in the next round it has waited longest
            if rows + len(wanted.tokens) > llama.most_rows:
                wanted = upcoming[active] = wanted.alone
            if rows == llama.most_rows:
                break
            rows += len(wanted.tokens)
            together.append(active)
        self.delivery.deliver()
        if len(together) > 1 or rows > 1:  # a pass of its own is the quickest for one token
            try:
                llama.compute_ahead([upcoming[active] for active in together])
            except Exception as error:
                for active in together:
                    self._give_up(slots, active, error)
                return
        if together:
            self.passes.add(rows)
        for active in together:
            active.turn = self._rounds
            going = self._step(slots, active)
            while going and (wanted := active.upcoming) is not None and wanted.computed and not active.job.cancelled:
                going = self._step(slots, active)

    def _step(self, slots: Slots, active: Active) -> bool:
        """One step of a job; False where it was the last."""
        try:
            next(active.steps)
            return True
        except StopIteration:
            self._leave(slots, active)
            self.finished(active.job)
        except Exception as error:
            self._give_up(slots, active, error)
        return False

    def _give_up(self, slots: Slots, active: Active, error: Exception) -> None:
        self._active.remove(active)
        slots.discard(active.slot)
        self._fail(active.job, error)

    def _leave(self, slots: Slots, active: Active) -> None:
        self._active.remove(active)
        slots.give_back(active.slot)

    def _over(self, job: Work) -> bool:
        return time.monotonic() > min(job.deadline, self._ends)

    def _end(self, job: Work) -> None:
        """Emit why a job ends early, if its client is still there."""
        if not job.cancelled:
            if time.monotonic() > self._ends:
                job.emit(JobFailed(shutting_down()))
            else:
                job.emit(JobFailed(APIError(408, "the request took longer than this server allows", code="timeout", retry_after=5)))
        self.finished(job)

    def _fail(self, job: Work, error: Exception) -> None:
        info = as_api_error(error)
        if info.status >= 500:
            log.error("a request failed", exc_info=error)
        job.emit(JobFailed(info))
        self.finished(job)
