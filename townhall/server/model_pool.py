"""Several models in one server: loaded when a request names one, unloaded least recently used when there is no room for another.

Everything here runs on the event loop, but for loading, unloading and reading headers, which other threads do. Nothing is unloaded
under a reply: a model that has to make room takes no more requests, and leaves when those it has are answered; who asks for it
meanwhile waits for its return, so that two models for which there is no room together take turns by what has gathered.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ext.tinygrad.errors import TownhallError
from townhall import process_memory
from townhall.context.source import PromptSources
from townhall.errors import ModelError
from townhall.prefix_cache import PrefixCache
from townhall.server.errors import APIError, as_api_error
from townhall.server.model_lease import ModelLease
from townhall.server.model_listing import listing
from townhall.server.serve_options import here
from townhall.server.served_models import BARE_MODEL, ServedModel
from townhall.server.service import Opened, Service

if TYPE_CHECKING:
    from townhall.server.model_rooms import ModelRooms

log = logging.getLogger("townhall.server")
State = Literal["disk", "waiting", "loading", "loaded", "leaving"]
AT = "@"  # between a persona and the model that it is to speak through
LOOK_AGAIN = 1.0  # seconds between two looks at the folders for a name that is not known
Load = Callable[[Path, str | None, Callable[[int, int], None]], Opened]  # a path, a device (None: the default), progress


@dataclass(eq=False)
class PooledModel:
    """A model of the listing: on the disk, or served. `name` is the listing's, `id` the one that requests name."""

    id: str
    name: str
    path: Path | None  # None: a double
    service: Service
    pinned: bool = False
    state: State = "disk"
    device: str | None = None
    resident: int | None = None  # by how many bytes the process grew when it was loaded
    error: str = ""  # why it could not be loaded the last time
    leases: int = 0
    used: float = 0.0  # when, by time.monotonic
    waiters: list["asyncio.Future[None]"] = field(default_factory=list)
    loading: "asyncio.Task[None] | None" = None
    leaving: "asyncio.Task[None] | None" = None
    voices: dict[str, ServedModel] = field(default_factory=dict)  # personas that it serves, as the first model had them then

    @property
    def busy(self) -> bool:
        return self.leases > 0 or self.service.busy

    @property
    def shown(self) -> State:
        """Its state, as clients are shown it."""
        return "leaving" if self.leaving else self.state


class ModelPool:
    """The first model of a server, and all others of its folders."""

    def __init__(
        self,
        first: Service,
        path: Path | None,
        folders: Sequence[Path],
        load: Load,
        rooms: "ModelRooms",
        pinned: Sequence[str] = (),
        heads: PrefixCache | None = None,
        note: Callable[[str], object] = lambda said: None,
    ):
        """`path` is the first model's, `pinned` are ids or names. ModelError for one that the folders do not hold."""
        self._first, self._folders, self._load, self.rooms, self._heads, self._note = first, folders, load, rooms, heads, note
        self._loop: asyncio.AbstractEventLoop | None = None
        self._change = asyncio.Event()
        self._locks: dict[str, asyncio.Lock] = {}
        self._looked = 0.0
        self.first = PooledModel(first.options.model_id, path.name if path else first.options.model_id, path, first, state="loading")
        self.models: dict[str, PooledModel] = {self.first.id: self.first}
        self._list(listing(folders, path))
        for name in pinned:
            if (found := self.named(name)) is None:
                raise ModelError(f"--pin {name}: there is no such model; the folders hold {', '.join(self.models) or 'none'}")
            found.pinned = True
        first.pool, first.idle = self, self._notify
        first.metrics.watch("townhall_models_loaded", "Models in memory.", lambda: len(self.loaded))

    def begin(self) -> None:
        """On the event loop: load what is pinned, once the first model is there."""
        self._loop = asyncio.get_running_loop()
        self._beginning = asyncio.ensure_future(self._load_pinned())

    async def _load_pinned(self) -> None:
        while not self._first.in_memory:
            await self._changes()
        for pooled in [one for one in self.models.values() if one.pinned]:
            try:
                self.want(pooled)
            except APIError as error:
                self._note(str(error))

    @property
    def loaded(self) -> list[PooledModel]:
        """In memory, or on the way there."""
        self.settle()
        return [pooled for pooled in list(self.models.values()) if pooled.state in ("loading", "loaded")]

    def named(self, name: str) -> PooledModel | None:
        """By its id or its name in the listing."""
        return self.models.get(name) or next((pooled for pooled in self.models.values() if pooled.name == name), None)

    async def refresh(self) -> None:
        """Look at the folders again."""
        self._looked = time.monotonic()
        self._list(await asyncio.to_thread(listing, self._folders, self.first.path))

    def find(self, model: str) -> ServedModel:
        """Who speaks under a model id, whether the model is in memory or not. APIError 404 where there is none."""
        first = self._first.served_models
        if (found := self._resolve(model)) is None or (found[0] is self.first and not found[1]):
            return first.find(model)
        pooled, persona = found
        if persona:
            return replace(first.find(persona), id=model, elsewhere=False)
        return ServedModel(pooled.id, BARE_MODEL, PromptSources((), self._first.llama.tokenizer))

    def knows(self, model: str) -> bool:
        """Does a model answer for that id?"""
        return self._resolve(model) is not None

    def of(self, model: str | None) -> PooledModel | None:
        """The model that answers for an id."""
        return found[0] if (found := self._resolve(model)) else None

    def serves(self, model: str | None) -> bool:
        """Is that the id of a model itself, without a persona?"""
        found = self._resolve(model) if model else None
        return found is not None and not found[1] and model == found[0].id

    async def hold(self, model: str | None) -> ModelLease:
        """The model that answers for an id, in memory; the first one for ids that are not known.

        APIError 503 where it does not fit, cannot be loaded or takes longer than a request may, 429 where too many wait."""
        self._first.served_models  # noqa: B018  (503 before the first was ever loaded)
        found = self._resolve(model)
        if found is None and model and time.monotonic() - self._looked > LOOK_AGAIN:
            await self.refresh()
            found = self._resolve(model)
        pooled, persona = found or (self.first, "")
        lease = await self._lease(pooled)
        try:
            if persona and pooled is not self.first:
                await self._speak(pooled, persona)
        except BaseException:
            lease.release()
            raise
        return lease

    def want(self, pooled: PooledModel) -> None:
        """Have it loaded; APIError 503 where it never fits."""
        self.settle()
        if pooled.state == "disk" or pooled.leaving:
            self.rooms.place(pooled, self.models.values())
        if pooled.loading is None and (pooled.state == "disk" or pooled.leaving):
            pooled.loading = asyncio.ensure_future(self._bring(pooled))

    def let_go(self, pooled: PooledModel) -> "asyncio.Task[None] | None":
        """Have it unloaded once its replies have ended; APIError 409 for one that is pinned. None where it is not in memory."""
        self.settle()
        if pooled.pinned:
            raise APIError(409, f"{pooled.id} is pinned, so that it stays in memory; unpin it first", "model", "pinned")
        if pooled.leaving is None and pooled.state == "loaded":
            pooled.leaving = asyncio.ensure_future(self._leave(pooled))
        return pooled.leaving

    def health(self) -> list[dict[str, Any]]:
        """Those that are not on the disk only."""
        self.settle()
        return [
            {"id": pooled.id, "state": pooled.shown, "progress": self.progress(pooled)}
            for pooled in self.models.values()
            if pooled.shown != "disk"
        ]

    def progress(self, pooled: PooledModel) -> float:
        """Of its loading, from 0 to 1."""
        return 1.0 if pooled.state == "loaded" else round(pooled.service.progress, 3) if pooled.state == "loading" else 0.0

    def settle(self) -> None:
        """Take in that the first model was loaded, which the pool did not do."""
        if self.first.state == "loading" and self.first.loading is None and self._first.in_memory:
            self.first.state, self.first.device = "loaded", self.rooms.first_device(self._first.opened)

    def _resolve(self, model: str | None) -> tuple[PooledModel, str] | None:
        """(the model, the persona that is to speak through it or "")."""
        if model is None or model in {served.id for served in self._first.served_models}:
            return self.first, ""
        if model in self.models:
            return self.models[model], ""
        persona, at, id = model.partition(AT)
        pooled = self.models.get(id) if at else None
        if pooled is None or persona == self.first.id or persona not in {served.id for served in self._first.served_models}:
            return None
        return pooled, persona

    def _list(self, found: Mapping[str, Path]) -> None:
        """Take in what is new, and forget what is gone and not in memory."""
        known = {pooled.name: pooled for pooled in self.models.values()}
        for name, path in found.items():
            if name not in known and path != self.first.path:
                id = name.removesuffix(".gguf")
                id = name if id in self.models else id
                self.models[id] = PooledModel(id, name, path, self._service(id, path))
        gone = [pooled for pooled in self.models.values() if pooled.name not in found and pooled is not self.first]
        for pooled in gone:
            if pooled.shown == "disk" and not pooled.waiters:
                del self.models[pooled.id]
                self._first.services.remove(pooled.service)

    def _service(self, id: str, path: Path) -> Service:
        options = self._first.options
        own = replace(
            options,
            model_id=id,
            personas=(),
            first="",
            leave_out=True,
            adapters=(),
            persona_suffix=f"{AT}{id}",
            via=None,  # who names a model wants that one
            history=None,
            log_settings={**here(options.log_settings), "model": str(path)},
        )
        service = Service(own, lambda: self._load(path, self.models[id].device, service.advance), self._heads, self._note, self._first)
        service.idle = self._notify
        return service

    async def _speak(self, pooled: PooledModel, persona: str) -> None:
        """Have a persona of the first model served by another, too, as it is now."""
        first, models, options = self._first.served_models, pooled.service.served_models, self._first.options
        if pooled.voices.get(persona) is (origin := first.find(persona)):
            return
        capacity, name = pooled.service.llama.max_context, first.name_of(persona)
        await pooled.service.plan(lambda planner: models.put(name, capacity, options.max_tokens))
        pooled.voices[persona] = origin

    async def _lease(self, pooled: PooledModel) -> ModelLease:
        self.settle()
        if pooled.state == "loaded" and not pooled.leaving:
            pooled.leases += 1
        else:
            most = self._first.options.limits.queue
            if len(pooled.waiters) >= most:
                raise APIError(429, f"{most} requests wait for {pooled.id} already; try again later", code="queue_full", retry_after=5)
            self.want(pooled)
            waiter = asyncio.get_running_loop().create_future()
            pooled.waiters.append(waiter)
            try:
                async with asyncio.timeout(self._first.options.limits.request):
                    await asyncio.shield(waiter)
            except BaseException as error:
                if waiter in pooled.waiters:
                    pooled.waiters.remove(waiter)
                elif not waiter.cancelled() and waiter.done() and waiter.exception() is None:  # it was granted in the same moment
                    self._released(pooled)
                if isinstance(error, TimeoutError):
                    raise APIError(503, f"{pooled.id} is still being loaded; try again", code="loading", retry_after=5) from None
                raise
        pooled.used = time.monotonic()
        return ModelLease(pooled.service, lambda: self._call(lambda: self._released(pooled)))

    def _released(self, pooled: PooledModel) -> None:
        pooled.leases -= 1
        pooled.used = time.monotonic()
        self._wake()

    async def _bring(self, pooled: PooledModel) -> None:
        """Load it, and let those in who wait for it."""
        try:
            while pooled.leaving:
                await self._changes()
            pooled.state, pooled.error = "waiting", ""
            device = self.rooms.place(pooled, self.models.values())
            async with self._locks.setdefault(device, asyncio.Lock()):
                await self._make_room(pooled, device)
                pooled.state, pooled.device = "loading", device
                before = process_memory.resident()
                await self._started(pooled)
                after = process_memory.resident()
                pooled.resident = max(0, after - before) if before is not None and after is not None else None
                pooled.state, pooled.used = "loaded", time.monotonic()
                self._first.metrics.model_loads.inc()
        except Exception as error:
            pooled.state, pooled.device, pooled.error = "disk", None, str(error)
            failure = (
                error if isinstance(error, APIError) else APIError(503, f"{pooled.id} cannot be loaded: {_said(error)}", code="load_failed")
            )
            self._note(str(failure))
            for waiter in pooled.waiters:
                if not waiter.done():
                    waiter.set_exception(failure)
        else:
            for waiter in pooled.waiters:
                if not waiter.done():
                    pooled.leases += 1
                    waiter.set_result(None)
        finally:
            pooled.waiters, pooled.loading = [], None
            self._wake()

    async def _make_room(self, pooled: PooledModel, device: str) -> None:
        """Unload until there is room: first what has nothing to do, of those what was not used for longest."""
        while (missing := self.rooms.missing(pooled, device, self.models.values())) > 0:
            leaving = [one for one in self.models.values() if one.device == device and one.state == "loaded" and not one.pinned]
            if not leaving:
                raise self.rooms.does_not_fit(pooled, device, missing, self.models.values())
            if task := self.let_go(min(leaving, key=lambda one: (one.leaving is None, one.busy, one.used))):
                await asyncio.shield(task)

    async def _leave(self, pooled: PooledModel) -> None:
        try:
            while pooled.busy:
                await self._changes()
            await asyncio.to_thread(pooled.service.unload)
            pooled.state, pooled.device, pooled.resident = "disk", None, None
            pooled.voices.clear()
            self._first.metrics.model_unloads.inc()
        finally:
            pooled.leaving = None
            self._wake()

    async def _started(self, pooled: PooledModel) -> None:
        """Its engine's thread runs; raises what kept the model from being loaded."""
        loop = asyncio.get_running_loop()
        ready = loop.create_future()

        def failed(error: BaseException) -> None:
            if ready.done():
                log.error("the engine of %s ended", pooled.id, exc_info=error)
            else:
                ready.set_exception(error if isinstance(error, Exception) else RuntimeError(str(error)))

        pooled.service.start(
            lambda: loop.call_soon_threadsafe(ready.set_result, None), lambda error: loop.call_soon_threadsafe(failed, error)
        )
        try:
            await ready
        except Exception:
            await asyncio.to_thread(pooled.service.unload)  # what was read so far
            raise

    async def _changes(self) -> None:
        await self._change.wait()

    def _wake(self) -> None:
        before, self._change = self._change, asyncio.Event()
        before.set()

    def _notify(self) -> None:
        self._call(self._wake)

    def _call(self, what: Callable[[], object]) -> None:
        """On the event loop, from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(what)


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, TownhallError) else as_api_error(error).message
