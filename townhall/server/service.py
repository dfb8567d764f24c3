"""Everything between HTTP and the engine: loads, plans, queues, and counts for Prometheus."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from townhall import process_memory
from townhall.enrich.enricher import Enricher, EnrichmentRequest, Resolved
from townhall.language_model import LanguageModel, SharesPasses
from townhall.prefix_cache import PrefixCache
from townhall.server.engine_turns import EngineTurns
from townhall.server.enrichment_work import EnrichmentWork, resolved
from townhall.server.errors import APIError
from townhall.server.job import Event, Job
from townhall.server.metrics import Metrics
from townhall.server.model_embeddings import EmbeddingWork
from townhall.server.model_facts import ModelFacts
from townhall.server.model_lease import ModelLease
from townhall.server.planned_request import PlannedRequest
from townhall.server.remote_job import RemoteJob, RemoteJobs
from townhall.server.request_planner import Planner
from townhall.server.scheduler import PassCount, Scheduler, Work
from townhall.server.serve_options import ServeOptions
from townhall.server.served_models import SampledAnswers, ServedModel, ServedModels
from townhall.server.slots import Adapters, Lane, Slots
from townhall.server.summaries import SummaryCheckpoints, SummaryStore, SummaryWork
from townhall.via.remote_model import RemoteModel

if TYPE_CHECKING:
    from townhall.server.model_pool import ModelPool

T = TypeVar("T")
MOST_SLOTS = 16
ROWS_TO_GUESS = 8  # of a pass, at least, where tokens are guessed
TIMED = 128  # tokens that are read at the start, so that it is known how long a pass takes
SHARE = 4  # a quarter of the free memory is for caches


class Opened(Protocol):
    """A model on its device, as `townhall.cli.model_loading` opens it."""

    llama: Any
    sampling: Any
    backend: Any


@dataclass
class Unloaded:
    """What stays of a model that was opened once: `llama` are its ModelFacts."""

    llama: Any
    sampling: Any
    backend: Any
    path: Any = None


class Service:
    """One model behind one queue. It can be taken out of memory, and started again.

    Of several in a process one is the `first`: the others share its turns on the devices, and what it counts.
    """

    def __init__(
        self,
        options: ServeOptions,
        load: Callable[[], Opened],
        heads: PrefixCache | None = None,
        note: Callable[[str], object] = lambda said: None,
        first: "Service | None" = None,
    ):
        """`note` gets a sentence for each of the options' personas that is left out."""
        self.options, self._load, self._head_cache, self._note = options, load, heads, note
        self.turns: EngineTurns = first.turns if first else EngineTurns()
        self.services: list[Service] = first.services if first else []  # of this process
        self.services.append(self)
        self.pool: ModelPool | None = None  # where the first of several models has one
        self.idle: Callable[[], Any] = lambda: None  # called on the engine's thread when it has nothing left to do
        self.passes = PassCount()  # of all schedulers that this service had
        self.scheduler = self._new_scheduler()
        self.metrics: Metrics = first.metrics if first else Metrics()
        self.remote: RemoteJobs | None = RemoteJobs(RemoteModel(options.via), note, self._finished) if options.via else None
        self.answers = SampledAnswers()
        self.started = time.time()
        self.draining = False
        self.at_end: list[Callable[[], Awaitable[None]]] = []  # what is to be done, after `drain`, before the event loop ends
        self.opened: Opened | None = None
        self.progress = 0.0  # of loading, up to 1
        self.identity: dict[str, str] = {}  # which weights on which device, as logs have it
        self._served_models: ServedModels | None = None
        self._planner: Planner | None = None
        self._summary_store: SummaryStore | None = None
        self._enricher: Enricher | None = None
        self._planning = ThreadPoolExecutor(1, thread_name_prefix="planner")
        self._speculated: list[Any] = []  # of each model that was loaded here: SpeculationCount
        self._summary_checkpoints = SummaryCheckpoints()
        if first is None:
            self._watch()

    def _watch(self) -> None:
        """Gauges over all models of this process."""

        def total(one: Callable[[Scheduler], int]) -> Callable[[], int]:
            return lambda: sum(one(service.scheduler) for service in self.services)

        watch = self.metrics.watch
        watch("townhall_waiting", "Requests that wait for a slot.", total(lambda scheduler: scheduler.waiting))
        watch("townhall_active", "Requests that take turns on the engine.", total(lambda scheduler: scheduler.active))
        evicted = total(lambda scheduler: scheduler.slots.evicted if scheduler.slots else 0)
        watch("townhall_evicted", "Conversations that lost their cache to another.", evicted)
        count = self.metrics.watch_count
        count("townhall_decode_passes", "Passes that computed next tokens.", lambda: sum(one.passes.passes for one in self.services))
        count("townhall_decode_rows", "Tokens that they computed, guesses included.", lambda: sum(one.passes.rows for one in self.services))
        if self.options.speculate:
            guesses = (
                ("drafts", "passes", "Passes that had guesses."),
                ("draft_tokens", "guessed", "Tokens that a pass computed on suspicion."),
                ("accepted_tokens", "accepted", "Of them those that were drawn."),
            )
            for name, field, help in guesses:
                count(f"townhall_spec_decode_num_{name}", help, partial(self._guesses, field))

    def _guesses(self, field: str) -> int:
        return sum(getattr(speculated, field) for one in self.services for speculated in one._speculated)

    def _new_scheduler(self) -> Scheduler:
        scheduler = Scheduler(self.options.limits.queue, self.turns, self.passes)
        scheduler.finished = self._finished
        scheduler.idle = lambda: self.idle()
        return scheduler

    def start(self, ready: Callable[[], Any], failed: Callable[[BaseException], Any]) -> None:
        """Begin to load; `ready` and `failed` are called on the engine's thread."""
        self.progress = 0.0

        def load() -> tuple[LanguageModel, Slots]:
            slots = self._open()
            ready()
            assert self.opened
            return self.opened.llama, slots

        self.scheduler.start(load, failed)

    def unload(self) -> None:
        """Take the model out of memory, from a thread that may wait; nothing may be under way. `start` brings it back.

        What is known of it stays for the first model of a process, whose personas are listed and changed meanwhile.
        """
        if self._summary_store:
            self._summary_store.close()
        self.scheduler.drain(0)
        self.scheduler.join(60.0)
        if self._summary_store:
            self._summary_store.release()
        self.scheduler, opened = self._new_scheduler(), self.opened
        self._summary_store = self._enricher = None
        if opened:
            self.opened = Unloaded(ModelFacts.of(opened.llama), opened.sampling, opened.backend, getattr(opened, "path", None))
        if self.services[0] is not self:
            self.opened, self._served_models, self._planner = None, None, None
        del opened
        with self.turns:
            process_memory.give_back()

    def _open(self) -> Slots:
        opened = self._load()
        llama = opened.llama
        facts = ModelFacts.of(llama)
        options, leave_out = self.options, self._note if self.options.leave_out else None
        served_models = ServedModels(
            facts,
            options.model_id,
            options.personas,
            options.format,
            options.think,
            options.adapters,
            options.lorebooks,
            options.knowledge,
            leave_out,
            options.persona_suffix,
            options.via.model if options.via else None,
        )
        for spec in options.adapters:
            llama.adapter(spec.path)  # a broken one is named now
        cache = llama.new_cache()
        most = self.options.slots or _affordable(cache)
        speculated = getattr(llama, "speculated", None) if self.options.speculate else None
        if isinstance(llama, SharesPasses) and (most > 1 or speculated):
            for adapters in dict.fromkeys([(), *(served_model.adapters for served_model in served_models)]):
                # and the background lane's, and one that takes the place of another before that is let go
                _adapted(llama, adapters).share_passes(most + 2, max(most + 1, ROWS_TO_GUESS if speculated else 0))
        if speculated is not None:
            self._speculated.append(speculated)
        self.turns.pass_on()
        slots = Slots(lambda adapters: _adapted(llama, adapters).new_cache(), most)
        llama.warm(cache)  # so that no first answer waits for it
        llama.prefill([stop := min(llama.tokenizer.stop_ids)] * min(TIMED, cache.capacity), cache)
        if isinstance(llama, SharesPasses):  # and the pieces of prompts that are read between others' tokens
            llama.patience = 0.0
            opened.llama.prefill([stop + 1 if stop == 0 else stop - 1], cache)
            while not llama.make_ready(cache, 1, float("inf")):  # and the steps after it
                pass
            llama.patience = None
        caches: dict[Adapters, Any] = {(): cache}
        for head, adapters in served_models.heads(cache.capacity, options.max_tokens, leave_out):
            if adapters not in caches:
                caches[adapters] = _adapted(llama, adapters).new_cache()
            cache = caches[adapters]
            if not (self._head_cache and self._head_cache.restore(cache, head)):
                llama.prefill(head, cache)
                if self._head_cache:
                    self._head_cache.keep(cache)
            slots.pin(cache, adapters)
            self.turns.pass_on()
        self._summary_store = SummaryStore(llama, self.options.format, slots, self.scheduler.submit, self._summary_checkpoints)
        planner = Planner(facts, served_models, self.answers, self._summary_store, self.options, opened.sampling, cache.capacity)
        self.opened, self._served_models, self._planner, self.identity = opened, served_models, planner, dict(cache.identity)
        return slots

    @property
    def ready(self) -> bool:
        """Was the model loaded, so that its personas are known? It may have left the memory since."""
        return self._served_models is not None

    @property
    def busy(self) -> bool:
        """Is anything under way that may need the model?"""
        return self.scheduler.busy or bool(self.remote and self.remote.active)

    @property
    def in_memory(self) -> bool:
        return self.opened is not None and not isinstance(self.opened, Unloaded)

    def advance(self, done: int, total: int) -> None:
        """So much of the model is loaded; engines of other models may have a turn. On the engine's thread, between two matrices."""
        self.progress = done / max(1, total)
        self.turns.pass_on()

    @property
    def served_models(self) -> ServedModels:
        """APIError 503 while the model is being loaded."""
        if self._served_models is None:
            raise APIError(503, "the model is being loaded; try again in a moment", code="loading", retry_after=2)
        return self._served_models

    @property
    def llama(self) -> LanguageModel:
        """APIError 503 while the model is being loaded."""
        if self.opened is None or self._served_models is None:
            raise APIError(503, "the model is being loaded; try again in a moment", code="loading", retry_after=2)
        return self.opened.llama

    async def plan(self, make: Callable[[Planner], T]) -> T:
        """Have the planner's thread work something out."""
        if self._planner is None:
            raise APIError(503, "the model is being loaded; try again in a moment", code="loading", retry_after=2)
        return await asyncio.get_running_loop().run_in_executor(self._planning, make, self._planner)

    async def hold(self, model: str | None) -> ModelLease:
        """Who answers for a model id, in memory: it stays there until the lease is released, or what was submitted has ended.

        APIError where it cannot be loaded."""
        return await self.pool.hold(model) if self.pool else ModelLease(self)

    def find(self, model: str) -> ServedModel:
        """Who speaks under a model id, be the model in memory or not. APIError 404 where there is none."""
        return self.pool.find(model) if self.pool else self.served_models.find(model)

    def submit(
        self,
        planned: PlannedRequest,
        lane: Lane,
        events: "asyncio.Queue[Event]",
        arrived: float,
        over: Callable[[], object] = lambda: None,
    ) -> Job | RemoteJob:
        """Queue the work; what happens to it comes out of `events`. APIError where the queue is full.

        `over` is called on the engine's thread, or an answering one, when nothing more comes of it, even where it was cancelled.
        """
        emit, deadline = self.scheduler.delivery.emitter(events), arrived + self.options.limits.request

        def at_end() -> None:
            self.scheduler.delivery.deliver()  # the last event comes before the word that it was the last
            over()

        def local(emit: Callable[[Event], None]) -> Job:
            return Job(planned.runs, emit, self.answers.remember, lane, deadline, arrived, over=at_end)

        if planned.elsewhere and self.remote:
            job = RemoteJob(planned.runs, planned.elsewhere, emit, local, self.scheduler.submit, deadline, arrived, at_end)
            return self.remote.submit(job)
        self.scheduler.submit(own := local(emit))
        return own

    def embed(self, texts: Sequence[list[int]], events: "asyncio.Queue[Any]", arrived: float) -> EmbeddingWork:
        """Queue texts, as ids, to be read; their `Embedded` comes out of `events`. APIError where the queue is full."""
        work = EmbeddingWork(texts, self.scheduler.delivery.emitter(events), arrived + self.options.limits.request)
        self.scheduler.submit(work)
        return work

    async def resolve(self, asked: EnrichmentRequest, gone: Callable[[], Awaitable[bool]]) -> Resolved:
        """A question that needs no other; APIError where the queue is full, or the client has `gone`."""
        with await self.hold(None):
            if self._enricher is None:
                llama = self.llama
                self._enricher = await self.plan(lambda planner: Enricher(llama, self.options.format))
            events: asyncio.Queue[Any] = asyncio.Queue()
            work = EnrichmentWork(
                self._enricher, asked, self.scheduler.delivery.emitter(events), time.monotonic() + self.options.limits.request
            )
            self.scheduler.submit(work)
        return await resolved(events, gone, lambda: self.cancel(work))

    def cancel(self, job: Job | RemoteJob | EmbeddingWork | EnrichmentWork) -> None:
        """Nobody waits for this any more."""
        job.cancel()
        self.scheduler.wake()

    def drain(self) -> None:
        """Take no more, with any model of this process; end what does not finish in time."""
        for service in self.services:
            service.draining = True
            if service._summary_store:
                service._summary_store.close()
            seconds = max(self.options.grace / 2, self.options.grace - 1.0)
            service.scheduler.drain(seconds)
            if service.remote:
                service.remote.drain(seconds)

    def close(self) -> None:
        """After `drain`."""
        for service in self.services:
            service._planning.shutdown(wait=False, cancel_futures=True)
            if service.remote:
                service.remote.join(1.0)
            service.scheduler.join(1.0)

    def count(self, path: str, status: int) -> None:
        """A request to this route was answered; 0 where it was not."""
        self.metrics.requests.labels(path, str(status)).inc()

    def health(self) -> dict[str, Any]:
        """What is going on, for people and for whatever watches over servers."""
        scheduler, opened = self.scheduler, self.opened
        state = "draining" if self.draining else "ok" if self.ready else "loading"
        return {
            "status": state,
            "model": self.options.model_id,
            "device": opened.backend.to_json() if opened else None,
            "description": opened.backend.describe() if opened else None,
            "queue": {"waiting": sum(one.scheduler.waiting for one in self.services), "most": scheduler.max_queue},
            "slots": {"active": scheduler.active, "most": scheduler.slots.most if scheduler.slots else None},
            "uptime": round(time.time() - self.started, 1),
            **({"via": self.options.via.place} if self.options.via else {}),
            **({"models": self.pool.health()} if self.pool else {}),
        }

    def _finished(self, work: "Work | RemoteJob") -> None:
        if isinstance(work, RemoteJob):
            self.metrics.count_remote(work)
            if work.standing_in is None:
                work.over()
            self.idle()
        elif isinstance(work, Job):
            self.metrics.count(work)
            work.over()
        elif isinstance(work, EmbeddingWork):
            self.metrics.prompt_tokens.inc(sum(map(len, work.texts)) if work.done else 0)
        elif isinstance(work, SummaryWork) and self._summary_store:
            self._summary_store.finished(work)


def _adapted(llama: Any, adapters: Adapters) -> Any:
    """The model with these adapters: the very one where there are none, which may be a double."""
    return llama.adapted(adapters) if adapters else llama


def _affordable(cache: Any) -> int:
    """Slots that the free memory has room for."""
    nbytes = getattr(cache, "nbytes", 0)
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):  # a system that does not say
        return 4
    return max(1, min(MOST_SLOTS, free // SHARE // nbytes)) if nbytes else MOST_SLOTS
