"""The operations of a chat: say, retry, carry on, edit, delete, branch, choose, and what is asked about tokens."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from pydantic import ValidationError

from townhall.chats.chat_generation import OVER, ChatGeneration, Kind
from townhall.chats.chat_requests import ChatChanges, ChatSettings, DrawnReply, MessageEdit, NewMessage, NoteFields
from townhall.chats.chat_turn import ChatNote, ChatTurn, KnownIds
from townhall.chats.watched_chat import WatchedChat
from townhall.logbook import restore
from townhall.logbook.chat_record import ChatFile, ChatRecord, now
from townhall.logbook.chat_tree import Rating, TreeNode
from townhall.server.errors import APIError
from townhall.server.job import JobFailed, TextEvent
from townhall.server.planned_request import PlannedRequest
from townhall.server.service import Service

JSON = dict[str, Any]
T = TypeVar("T")
REMEMBERED_KEYS = 64  # of messages that were sent


class ServedChat(WatchedChat):
    """Everything that can be done with a chat; what cannot be done is refused with an APIError, and all is as before."""

    def __init__(self, file: ChatFile, service: Service, announce: Callable[["WatchedChat"], object]):
        """As a `WatchedChat`."""
        super().__init__(file, service, announce)
        self._known = KnownIds(service.identity.get("model"))
        self._answered: dict[str, JSON] = {}  # what messages that were sent with a key came to
        self._count = 0

    async def send(self, asked: NewMessage) -> tuple[JSON, bool]:
        """(Change, whether a reply is being written). Everything is as before where the message cannot be answered."""
        if asked.key and asked.key in self._answered:
            return self._answered[asked.key], asked.reply
        async with self._lock:
            if asked.key and asked.key in self._answered:  # by now
                return self._answered[asked.key], asked.reply
            self.refuse_busy()
            path = self._path()
            if asked.after is not None and asked.after != (path[-1].id if path else 0):
                raise APIError(409, "another message is the last one of this chat by now; look at it and send again", "after", "conflict")
            before, generation = self._glances(), None
            if asked.reply:
                _, waiting = restore.split(node.turn for node in path)
                question = "\n\n".join(filter(None, (waiting.text if waiting else "", asked.text)))
                generation = await self._planned("reply", path, asked, question, len(path) + 1)
            with self._writing() as (stack, record):
                if generation:
                    self._submit(generation, stack)
                facts: JSON = {"at": now()} if asked.role == "user" else {"at": now(), "written": True}
                facts |= {"enriched": asked.enriched.model_dump()} if asked.enriched and asked.role == "user" else {}
                node = await self._write(lambda: record.say(asked.role, asked.text, facts))
                if generation:
                    generation.message, generation.parent = self.tree.next_id, node.id
                    self._start(generation, stack)
            change = self._tell(before)
            if generation:
                self._tell_begin(generation)
            if asked.key:
                self._answered[asked.key] = change
                while len(self._answered) > REMEMBERED_KEYS:
                    del self._answered[next(iter(self._answered))]
        self._announce(self)
        return change, asked.reply

    async def reply(self, asked: DrawnReply, message: int | None) -> JSON:
        """Another reply to a message of the user's, or in the place of one of the character's."""
        async with self._lock:
            self.refuse_busy()
            path = self._path()
            node = self.node(message) if message is not None else path[-1] if path else None
            if node is None:
                raise APIError(400, "nothing has been said yet that could be answered", code="nothing_to_answer")
            parent = node.id if node.turn.role == "user" else node.parent
            return await self._begin("reply", self.tree.path_to(parent), asked, parent)

    async def alternative(self, asked: DrawnReply, message: int, position: int, token: int) -> JSON:
        """A reply that begins as another does, and goes on with another token."""
        async with self._lock:
            self.refuse_busy()
            node = self._reply_node(message)
            return await self._begin("reply", self.tree.path_to(node.parent), asked, node.parent, node, (position, token))

    async def carry_on(self, asked: DrawnReply, message: int | None) -> JSON:
        """The last reply is carried on, in its place."""
        async with self._lock:
            self.refuse_busy()
            path = self._path()
            if not path or path[-1].turn.role == "user" or (message is not None and message != path[-1].id):
                raise APIError(400, "only the last message can be carried on, and only the character's", "message", "nothing_to_continue")
            return await self._begin("continue", path[:-1], asked, path[-1].parent, path[-1])

    async def impersonate(self, asked: DrawnReply) -> JSON:
        """The model writes what the user might say next; it goes to the composer, not into the chat."""
        async with self._lock:
            self.refuse_busy()
            return await self._begin("impersonate", self._path(), asked, None)

    async def choose(self, message: int) -> JSON:
        """Lead the path through a message."""
        node = self.node(message)
        return await self._change(lambda record: record.choose(node))

    async def branch(self, message: int) -> JSON:
        """End the path at a message, 0: at the beginning."""
        if message:
            self.node(message)
        return await self._change(lambda record: record.branch(message))

    async def delete_message(self, message: int, below: bool) -> JSON:
        """Take it back, alone or with all that follows."""
        node = self.node(message)
        return await self._change(lambda record: record.delete(node, below))

    async def edit(self, asked: MessageEdit, message: int) -> tuple[JSON, bool]:
        """(Change, whether a reply is being written)."""
        node = self.node(message)
        if not asked.text.strip():
            raise APIError(400, "text: a message holds at least one character that is no space; delete the message instead", "text")
        if not asked.copy_:
            if asked.reply:
                raise APIError(400, "reply goes with copy: what was edited in place keeps what stands below it", "reply")
            return await self._change(lambda record: record.edit(node, asked.text)), False
        if not asked.reply:
            return await self._change(lambda record: self._beside(record, node, asked.text)), False
        if node.turn.role != "user":
            raise APIError(400, "only a message of the user's is answered", "reply")
        async with self._lock:
            self.refuse_busy()
            before, path = self._glances(), self.tree.path_to(node.parent)
            _, waiting = restore.split(one.turn for one in path)
            question = "\n\n".join(filter(None, (waiting.text if waiting else "", asked.text)))
            generation = await self._planned("reply", path, asked, question, len(path) + 1)
            with self._writing() as (stack, record):
                self._submit(generation, stack)
                copied = await self._write(lambda: self._beside(record, node, asked.text))
                generation.message, generation.parent = self.tree.next_id, copied.id
                self._start(generation, stack)
            change = self._tell(before)
            self._tell_begin(generation)
        self._announce(self)
        return change, True

    async def rate(self, message: int, rating: Rating | None) -> JSON:
        """Say whether a reply is a good one; None takes that back."""
        node = self.node(message)
        if node.turn.role != "assistant":
            raise APIError(400, f"message {message} is the user's, and only replies are rated", "message")
        return await self._change(lambda record: record.rate(node, rating))

    async def set(self, changes: ChatChanges) -> JSON:
        """Title, folder, tags, system prompt, note, settings, model."""
        if "model" in changes.model_fields_set and changes.model is not None:
            self._service.find(changes.model)
        if changes.settings and changes.settings.adapters:
            self._service.served_models.adapters_of(self._service.served_models.bare, adapters_named(changes.settings.given()))
        if changes.settings and changes.settings.libraries:
            libraries = changes.settings.libraries
            await self._service.plan(lambda planner: self._service.served_models.libraries.source(libraries))
        given = changes.given()

        def write(record: ChatRecord) -> None:
            if "title" in changes.model_fields_set:
                record.rename((changes.title or "").strip())
            if given:
                record.set(given)

        async with self._lock:
            with self._writing() as (_, record):
                await self._write(lambda: write(record))
            event = self.hub.publish("chat", self.details())
        self._announce(self)
        return {**self.details(), "event": event}

    async def tokens(self, text: str) -> JSON:
        """Of a text, and of the prompt that it would make."""
        planned, count = await self._asking(text)
        info = planned.info
        return {
            "tokens": count,
            "prompt_tokens": info["prompt_tokens"],
            "window": info["window"],
            "reserve_tokens": info["reserve_tokens"],
            "dropped_tokens": info["dropped_tokens"],
        }

    async def notes(self, text: str) -> Sequence[str]:
        """Those of the memory that a prompt with this text would hold."""
        return (await self._asking(text))[0].notes

    async def _asking(self, text: str) -> tuple[PlannedRequest, int]:
        """(what would be asked with this text, its tokens)."""
        path = self._path()
        _, waiting = restore.split(node.turn for node in path)
        question = "\n\n".join(filter(None, (waiting.text if waiting else "", text)))
        turn = self._turn(path, DrawnReply(), question=question)
        with await self._service.hold(turn.model) as service:
            turn = replace(turn, known=self._known_ids(service))
            return await service.plan(lambda planner: (planner.turn(turn), planner.count(text)))

    async def logprobs(self, message: int, top: int) -> JSON:
        """Of each token of a reply, computed now."""
        node = self._reply_node(message)
        turn = self._turn(self.tree.path_to(node.parent), DrawnReply(), carried=node, score=top)
        lease = await self._service.hold(turn.model)
        with lease as service:
            turn = replace(turn, known=self._known_ids(service))
            planned = await service.plan(lambda planner: planner.turn(turn))
            events: asyncio.Queue[Any] = asyncio.Queue()
            loop = asyncio.get_running_loop()
            over = lambda: loop.call_soon_threadsafe(events.put_nowait, OVER)  # noqa: E731
            job = service.submit(planned, "background", events, time.monotonic(), over)
            decode = service.llama.tokenizer.decode
        found: Sequence[Any] = ()
        try:
            while (event := await events.get()) is not OVER:
                if isinstance(event, TextEvent):
                    found = event.logprobs
                elif isinstance(event, JobFailed):
                    raise event.error
        finally:
            service.cancel(job)

        def described() -> list[JSON]:
            tokens = []
            for one in found[len(found) - len(planned.given) :]:
                alternatives = [{"id": id, "text": decode([id]), "logprob": round(value, 4)} for id, value in getattr(one, "top", ())]
                logprob = getattr(one, "logprob", None)
                tokens.append(
                    {
                        "id": one.token,
                        "text": decode([one.token]),
                        "logprob": None if logprob is None else round(logprob, 4),
                        "top": alternatives,
                    }
                )
            return tokens

        return {"message": message, "tokens": await asyncio.to_thread(described)}

    async def _begin(
        self,
        kind: Kind,
        path: list[TreeNode],
        asked: DrawnReply,
        parent: int | None,
        carried: TreeNode | None = None,
        turning: tuple[int, int] | None = None,
    ) -> JSON:
        """A generation after `path`, to which nothing is added first; `turning` is where it leaves the reply that it begins as."""
        before = self._glances()
        generation = await self._planned(kind, path, asked, None, len(path), carried, turning)
        generation.parent = parent
        if kind == "continue" and carried:
            generation.carried, generation.message, generation.base = carried, carried.id, carried.turn.text
        elif kind == "reply":
            generation.message = self.tree.next_id
        with self._writing() as (stack, _):
            self._submit(generation, stack)
            self._start(generation, stack)
        self._tell_begin(generation)
        return self._changed(before)

    async def _planned(
        self,
        kind: Kind,
        path: list[TreeNode],
        asked: DrawnReply,
        question: str | None,
        index: int,
        carried: TreeNode | None = None,
        turning: tuple[int, int] | None = None,
    ) -> ChatGeneration:
        turn = self._turn(path, asked, question, carried, turning, impersonate=kind == "impersonate")
        lease = await self._service.hold(turn.model)
        turn = replace(turn, known=self._known_ids(lease.service))
        planned = await lease.service.plan(lambda planner: planner.turn(turn))
        self._count += 1
        index_or_none = None if kind == "impersonate" else index
        return ChatGeneration(f"g{self._count}", kind, planned, index_or_none, lease, "" if planned.given else turn.prefill)

    def _turn(
        self,
        path: list[TreeNode],
        asked: DrawnReply,
        question: str | None = None,
        carried: TreeNode | None = None,
        turning: tuple[int, int] | None = None,
        impersonate: bool = False,
        score: int | None = None,
    ) -> ChatTurn:
        """What the planner is asked for, as the chat and `asked` are set. APIError where the character is not served."""
        model = self.model
        if model is None:
            who = self.file.head.get("persona") or "another program"
            raise APIError(
                400, f"this chat was with {who}, whom this server does not have; set its model to another", "model", "model_not_found"
            )
        kept = self.details()
        settings, note = self._readable(kept)
        said, waiting = restore.split(node.turn for node in path)
        sampler = {**settings.get("sampler", {}), **(asked.sampler.given() if asked.sampler else {})}
        return ChatTurn(
            model=model,
            said=said,
            question=question if question is not None else waiting.text if waiting else "",
            known=self._known,
            carried=carried.turn if carried else None,
            upto=turning[0] if turning else None,
            token=turning[1] if turning else 0,
            prefill=asked.prefill,
            impersonate=impersonate,
            system=kept["system"],
            note=ChatNote(note.text, note.depth, note.role) if note else None,
            sampler={name: tuple(value) if isinstance(value, list) else value for name, value in sampler.items() if value is not None},
            seed=asked.seed if asked.seed is not None else settings.get("seed"),
            max_tokens=asked.max_tokens or settings.get("max_tokens"),
            context=settings.get("context"),
            think=settings.get("think"),
            stop=tuple(settings.get("stop") or ()),
            adapters=adapters_named(settings),
            libraries=settings.get("libraries"),
            score=score,
        )

    def _readable(self, kept: JSON) -> tuple[JSON, NoteFields | None]:
        """The chat's settings and note. APIError where a person wrote others into the log."""
        try:
            note = NoteFields.model_validate(kept["note"]) if kept["note"] else None
            return ChatSettings.model_validate(kept["settings"]).given(), note
        except ValidationError as error:
            where, fault = ".".join(map(str, error.errors()[0]["loc"])), error.errors()[0]["msg"]
            raise APIError(400, f"the settings in log {self.id} cannot be used ({where}: {fault}); set them anew", "settings") from error

    def _reply_node(self, message: int) -> TreeNode:
        node = self.node(message)
        if node.turn.role != "assistant":
            raise APIError(400, f"message {message} is the user's", "message")
        if "via" in node.facts:
            raise APIError(400, f"message {message} is another server's model's, whose tokens are not known here", "message", "not_local")
        return node

    def _known_ids(self, service: Service) -> KnownIds:
        """Of the model that is asked."""
        if self._known.model != (model := service.identity.get("model")):
            self._known = KnownIds(model)
        return self._known

    def _beside(self, record: ChatRecord, node: TreeNode, text: str) -> TreeNode:
        """Other words beside a message, with nothing below them."""
        record.branch(node.parent)
        facts = {"at": now()} if node.turn.role == "user" else {"at": now(), "written": True}
        return record.say(node.turn.role, text, facts)


def adapters_named(settings: JSON) -> list[tuple[str, float]] | None:
    """Names and scales of the adapters that a chat is set to have; None where it has the character's own."""
    named = settings.get("adapters")
    return [(str(one["name"]), float(one["scale"])) for one in named] if isinstance(named, list) else None
