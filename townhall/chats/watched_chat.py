"""A chat that clients watch: read, written one operation after the other, and the reply that is being written."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from app.sampler_settings import worth_noting
from townhall.chats import chat_view
from townhall.chats.chat_events import EventHub
from townhall.chats.chat_generation import OVER, ChatGeneration
from townhall.errors import LogError
from townhall.logbook.chat_record import ChatFile, ChatRecord, now
from townhall.logbook.chat_tree import ChatTree, TreeNode
from townhall.logbook.logged_chat import COMPLETION
from townhall.server.errors import APIError, as_api_error
from townhall.server.job import JobFailed, TextEvent
from townhall.server.serve_options import here
from townhall.server.served_models import ServedModel, persona_id
from townhall.server.service import Service
from townhall.via.cost_total import cost_of

JSON = dict[str, Any]
T = TypeVar("T")
REMEMBERED_KEYS = 64  # of messages that were sent


class WatchedChat:
    """Belongs to the event loop; files are written in a worker thread, one operation after the other."""

    def __init__(self, file: ChatFile, service: Service, announce: Callable[["WatchedChat"], object]):
        """`announce` is called when what a list says of the chat has changed."""
        self.file, self._service, self._announce = file, service, announce
        self.hub = EventHub()
        self.generation: ChatGeneration | None = None
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def id(self) -> str:
        return self.file.path.stem

    @property
    def tree(self) -> ChatTree:
        return self.file.record.tree

    @property
    def model(self) -> str | None:
        """Who answers; None where this server does not have that persona."""
        head, chosen = self.file.head, self.tree.settings.get("model")
        if head.get("kind") == COMPLETION:
            return None
        return speaker_of(self._service, str(chosen or head.get("served_as") or ""), str(head.get("persona") or ""))

    def head(self) -> JSON:
        """A ChatHead."""
        head, path, settings = self.file.head, self.tree.path(), self.tree.settings
        first = next((node.turn.text for node in path if node.turn.role == "user"), "")
        tags = settings.get("tags")
        return {
            "id": self.id,
            "title": self.tree.title,
            "model": self.model,
            "persona": str(head.get("persona") or ""),
            "user": str(head.get("user") or ""),
            "started": str(head.get("started") or ""),
            "changed": now(),
            "messages": len(path),
            "first": chat_view.line(first, chat_view.FIRST),
            "folder": str(settings.get("folder") or ""),
            "tags": [str(tag) for tag in tags] if isinstance(tags, list) else [],
            "damages": len(self.file.log.damages),
            "fault": self.file.problem or None,
            "busy": self.generation is not None,
        }

    def details(self) -> JSON:
        """What a chat is set to."""
        kept = self.tree.settings
        settings, note = kept.get("settings"), kept.get("note")
        return {
            "chat": self.head(),
            "settings": settings if isinstance(settings, dict) else {},
            "system": str(kept.get("system") or ""),
            "note": note if isinstance(note, dict) else None,
        }

    def view(self, limit: int) -> JSON:
        """Open, without the draft."""
        path = self.tree.path()
        start = max(0, len(path) - limit)
        model = self.model
        persona = self._service.find(model).persona if model else None
        return {
            **self.details(),
            "greetings": [text for text in (persona.greeting, *persona.alternate_greetings) if text] if persona else [],
            "messages": chat_view.messages(self.tree, path, start, limit),
            "from": start,
            "total": len(path),
            "generation": self.generation.to_json() if self.generation else None,
            "saved": self.file.saved,
            "enrich": self.details()["settings"].get("enrich") or self._service.options.enrich,
            "event": self.hub.last,
        }

    def message(self, id: int, whole: bool = False) -> JSON:
        """A Message."""
        node = self.node(id)
        path = self.tree.path()
        return chat_view.message(self.tree, node, path.index(node) if node in path else None, whole)

    def node(self, id: int) -> TreeNode:
        """APIError 404 where there is none that stands."""
        node = self.tree.nodes.get(id)
        if node is None or node.taken:
            raise APIError(404, f"there is no message {id} in this chat", "message", "message_not_found")
        return node

    async def follow(self) -> None:
        """Read what another program wrote to the log meanwhile."""
        async with self._lock:
            before = self._glances()
            try:
                changed = await asyncio.to_thread(self.file.follow)
            except LogError as error:
                raise APIError(404, str(error), code="chat_not_found") from error
            if changed:
                self._tell(before)
                self.hub.publish("chat", self.details())

    async def stop(self) -> JSON:
        """End the reply that is being written; what there is of it stays."""
        before = self._glances()
        if generation := self.generation:
            if generation.job:
                self._service.cancel(generation.job)
            await generation.ended.wait()
        return self._changed(before)

    async def keep(self) -> None:
        """Have it on the disk, though nothing was said yet."""
        if not self.file.saved:
            async with self._lock:
                with self._writing():
                    await self._write(self.file.keep)
            self._announce(self)

    def refuse_busy(self) -> None:
        """APIError 409 while a reply is being written."""
        if self.generation:
            raise APIError(409, "a reply is being written in this chat; stop it or wait for its end", code="busy")

    def _path(self) -> list[TreeNode]:
        return self.tree.path()

    async def _change(self, act: Callable[[ChatRecord], object]) -> JSON:
        async with self._lock:
            self.refuse_busy()
            before = self._glances()
            with self._writing() as (_, record):
                await self._write(lambda: act(record))
            change = self._tell(before)
        self._announce(self)
        return change

    @contextmanager
    def _writing(self) -> Iterator[tuple[ExitStack, ChatRecord]]:
        """The log, locked; APIError 409 where another program writes to it. What is in the stack is undone unless it is taken over."""
        with ExitStack() as stack:
            try:
                record = stack.enter_context(self.file.open())
            except LogError as error:
                raise APIError(409, str(error), code="locked") from error
            except OSError as error:
                raise APIError(507, f"log {self.file.path} cannot be written: {error.strerror or error}", code="storage") from error
            yield stack, record

    async def _write(self, act: Callable[[], T]) -> T:
        """Have a worker thread do what waits for the disk."""
        return await asyncio.to_thread(act)

    def greet(self, greetings: Sequence[str], chosen: int) -> None:
        """Begin a fresh chat with greetings, as swipes of each other; they come to the disk with what is said next."""
        record = self.file.record
        for at, text in enumerate(greetings):
            record.branch(0)
            record.say("assistant", text, {"at": now(), "greeting": at})
        if chosen != len(greetings) - 1:
            record.choose(self.tree.below(0)[chosen])

    def _submit(self, generation: ChatGeneration, stack: ExitStack) -> None:
        """Queue it; it is cancelled with the stack."""
        if via := self._service.options.via:
            receipts = [node.facts.get("receipt") for node in self.tree.nodes.values()]  # what was taken back was paid for, too
            generation.cost_before = cost_of(receipts, via.price.currency if via.price else "")
        generation.submit()
        assert generation.job is not None
        stack.callback(generation.service.cancel, generation.job)

    def _start(self, generation: ChatGeneration, stack: ExitStack) -> None:
        """From here on it is written by itself, and has the log until its end."""
        self.generation = generation
        task = asyncio.create_task(self._write_on(generation, stack.pop_all()))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _tell_begin(self, generation: ChatGeneration) -> None:
        """Watchers get that it began, and what its prompt holds; before anything was awaited since `_start`."""
        self.hub.publish("begin", generation.to_json())
        self.hub.publish("prompt", {"generation": generation.id, "receipt": chat_view.lean_receipt(generation.receipt)})

    async def _write_on(self, generation: ChatGeneration, stack: ExitStack) -> None:
        id = {"generation": generation.id}
        try:
            with stack:
                while (event := await generation.events.get()) is not OVER:
                    if isinstance(event, TextEvent):
                        if event.reasoning:
                            self.hub.publish("thoughts", {**id, "text": event.reasoning})
                        if news := generation.more(event.text, event.reasoning):
                            self.hub.publish("delta", {**id, "text": news})
                    elif isinstance(event, JobFailed):
                        generation.error = as_api_error(event.error)
                before = self._glances()
                node = await self._write(lambda: generation.keep(self.file.record, generation.service.identity))
        finally:
            self.generation = None
            generation.ended.set()
        change = self._changed(before) | {"event": self.hub.next}
        message = self.message(node.id) if node else None
        answer = generation.answer
        self.hub.publish(
            "end",
            {
                **id,
                "kind": generation.kind,
                "message": message,
                "text": message["text"] if message else generation.text,
                "finish_reason": (answer[1] if answer else None) or "interrupted",
                "usage": message["usage"] if message else None,
                "error": generation.error.body()["error"] if generation.error else None,
                "change": change,
            },
        )
        self._announce(self)

    def _glances(self) -> list[chat_view.Glance]:
        return chat_view.glances(self.tree, self._path())

    def _changed(self, before: list[chat_view.Glance]) -> JSON:
        """A Change since then."""
        path = self._path()
        start = chat_view.difference(before, chat_view.glances(self.tree, path))
        shown = chat_view.messages(self.tree, path, start, chat_view.MOST_AT_ONCE)
        return {
            "event": self.hub.last,
            "from": start,
            "total": len(path),
            "messages": shown,
            "more": start + len(shown) < len(path),
            "generation": self.generation.to_json() if self.generation else None,
        }

    def _tell(self, before: list[chat_view.Glance]) -> JSON:
        """A Change since then, which every watcher gets."""
        change = self._changed(before) | {"event": self.hub.next}
        self.hub.publish("change", change)
        return change


def speaker_of(service: Service, served_as: str, persona: str) -> str | None:
    """The model id under which a chat's character is served, by the id it had or by its name; None where it is not."""
    served = list(service.served_models)
    if any(served_model.id == served_as for served_model in served) or (service.pool and service.pool.knows(served_as)):
        return served_as
    return next((served_model.id for served_model in served if served_model.persona.name == persona), None)


def front_matter(service: Service, id: str, served_model: ServedModel) -> JSON:
    """What a new chat's log says of itself: all that it takes to repeat its replies."""
    pooled, persona = service.pool.of(served_model.id) if service.pool else None, served_model.persona
    own = pooled.service if pooled else service
    options, id_there = own.options, served_model.id.removesuffix(own.options.persona_suffix)
    named = next((name for name in service.options.personas if persona_id(name) == id_there), id_there)
    lora = [f"{path.absolute()}:{scale!r}" for path, scale in served_model.adapters]
    logged = options.log_settings if served_model.elsewhere else here(options.log_settings)
    settings = {
        **{key: value for key, value in logged.items() if key != "lora"},
        **({"lora": lora} if lora else {}),
        **({} if served_model.bare else {"personality": named}),
        "format": options.format,
        "context": options.context,
        "count": options.max_tokens,
        "max_context": (own if own.in_memory else service).llama.max_context,
    }
    return {
        "id": id,
        "started": now(),
        "user": persona.user,
        "persona": persona.name,
        "weights": own.identity.get("model"),
        "device": own.identity.get("device"),
        "served_as": served_model.id,
        **({"bare": True} if served_model.bare else {}),
        "settings": worth_noting(settings),
    }
