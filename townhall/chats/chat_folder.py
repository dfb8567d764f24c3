"""The chats of a folder: listed, searched, opened; and the drafts that wait in their composers."""

import asyncio
import os
from collections import Counter, OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from townhall.chats import chat_view
from townhall.chats.chat_events import EventHub
from townhall.chats.served_chat import ServedChat
from townhall.chats.watched_chat import front_matter, speaker_of
from townhall.errors import LogError
from townhall.logbook.chat_record import ChatFile, renumbered
from townhall.logbook.log_index import Index, LogEntry
from townhall.logbook.log_syntax import mark, turn
from townhall.logbook.log_writer import SUFFIX, new_id, write_whole
from townhall.server.errors import APIError
from townhall.server.service import Service

MOST_OPEN = 64  # chats that stay in memory without watchers
MOST_NAMES = 200  # characters of an id


@dataclass(frozen=True)
class ChatQuery:
    """What a list is to hold."""

    limit: int = 50
    offset: int = 0
    words: str = ""
    folder: str | None = None
    tag: str = ""
    model: str = ""


class ChatFolder:
    """Ids are names of files in `path`; nothing else on the disk can be reached through them."""

    def __init__(self, path: Path, service: Service):
        self.path, self._service = path, service
        self.hub = EventHub()
        self._open: OrderedDict[str, ServedChat] = OrderedDict()

    def begin(self, model: str) -> ServedChat:
        """A chat that comes to the disk with its first words."""
        id = new_id()
        chat = self._served(ChatFile(self._file(id), front_matter(self._service, id, self._service.find(model))))
        self._keep(chat)
        return chat

    async def find(self, id: str) -> ServedChat:
        """An open chat, or one from the disk, as it is there now. APIError 404 where there is none."""
        chat = self._open.get(id)
        if chat is None:
            path = self._existing(id)
            try:
                file = await asyncio.to_thread(ChatFile, path, {})
            except LogError as error:
                raise APIError(404, str(error), code="chat_not_found") from error
            chat = self._open.get(id) or self._served(file)
        elif chat.file.saved:
            if not chat.file.path.is_file():
                self.forget(chat)
                raise self._none(id)
            await chat.follow()
        self._keep(chat)
        return chat

    async def listing(self, query: ChatQuery) -> dict[str, Any]:
        """A page of the list, the chat that changed last first, with folders and tags and how many chats each has."""
        event = self.hub.last
        entries, holding = await asyncio.to_thread(self._entries, query.words)
        shown = [
            entry
            for entry in entries
            if (query.folder is None or entry.folder == query.folder)
            and (not query.tag or query.tag in entry.tags)
            and (not query.model or self._model(entry) == query.model)
            and (holding is None or entry.name in holding)
        ]
        page, beyond = shown[query.offset : query.offset + query.limit], query.offset + query.limit
        return {
            "chats": [self._head(entry) for entry in page],
            "total": len(shown),
            "next": beyond if beyond < len(shown) else None,
            "folders": _counted(Counter(entry.folder for entry in entries if entry.folder)),
            "tags": _counted(Counter(tag for entry in entries for tag in entry.tags)),
            "event": event,
        }

    async def search(self, words: str, limit: int, offset: int) -> dict[str, Any]:
        """Messages that hold all the words, of all chats, those of other branches as well."""
        if not words.split():
            return {"hits": [], "total": 0, "next": None}
        found, total, entries = await asyncio.to_thread(self._search, words, limit, offset)
        named = {entry.name: entry for entry in entries}
        hits = [
            {
                "chat": Path(hit.name).stem,
                "title": named[hit.name].title,
                "first": chat_view.line(named[hit.name].first, chat_view.FIRST),
                "persona": named[hit.name].persona,
                "message": hit.message,
                "role": hit.role,
                "name": hit.speaker,
                "excerpt": chat_view.excerpt(hit.text, words.split()[0]),
                "on_path": bool(hit.standing),
                "at": hit.at or None,
            }
            for hit in found
            if hit.name in named
        ]
        return {"hits": hits, "total": total, "next": offset + limit if offset + limit < total else None}

    async def delete(self, chat: ServedChat) -> None:
        """For good, with its draft. APIError 409 while a reply is being written."""
        chat.refuse_busy()

        def unlink() -> None:
            self.draft_path(chat.id).unlink(missing_ok=True)
            chat.file.path.unlink(missing_ok=not chat.file.saved)

        try:
            await asyncio.to_thread(unlink)
        except OSError as error:
            raise APIError(500, f"chat {chat.id} cannot be deleted: {error.strerror or error}", code="storage") from error
        chat.hub.publish("deleted", {})
        chat.hub.close()
        self.forget(chat)
        self.hub.publish("chats", {"chat": None, "deleted": chat.id})

    async def copy(self, chat: ServedChat, message: int, title: str) -> ServedChat:
        """A new chat that begins with the path to a message."""
        path, settings = chat.tree.path_to(message), chat.tree.settings
        head = {**chat.file.head, "id": (id := new_id()), "started": datetime.now(UTC).isoformat(timespec="milliseconds")}
        parts = [mark("title", {"title": title}) if title else "", mark("set", settings) if settings else ""]
        for one in renumbered(path, chat.id):
            parts.append(turn(one.name, one.text, "user" if one.role == "user" else "reply", one.facts or {}))
        await asyncio.to_thread(write_whole, self._file(id), head, "".join(parts))
        copied = await self.find(id)
        self.hub.publish("chats", {"chat": copied.head(), "deleted": None})
        return copied

    def draft_path(self, id: str) -> Path:
        return self.path / f".{id}.draft"

    async def draft(self, id: str) -> str:
        """What waits in the composer."""

        def read() -> str:
            with suppress(OSError):
                return self.draft_path(id).read_text(encoding="utf-8", errors="replace")
            return ""

        return await asyncio.to_thread(read)

    async def keep_draft(self, id: str, text: str) -> None:
        """All of it or as it was; "" forgets it."""
        path = self.draft_path(id)

        def write() -> None:
            if not text:
                path.unlink(missing_ok=True)
                return
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            part = path.with_suffix(f".{os.urandom(4).hex()}.part")
            try:
                with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8", errors="replace") as file:
                    file.write(text)
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)

        try:
            await asyncio.to_thread(write)
        except OSError as error:
            raise APIError(507, f"the draft cannot be kept: {error.strerror or error}", code="storage") from error

    async def close(self) -> None:
        """Keep what replies have come to."""
        for chat in list(self._open.values()):
            await chat.stop()

    def forget(self, chat: ServedChat) -> None:
        """It is gone from the disk."""
        self._open.pop(chat.id, None)

    def _keep(self, chat: ServedChat) -> None:
        self._open[chat.id] = chat
        self._open.move_to_end(chat.id)
        for id, other in list(self._open.items()):
            if len(self._open) <= MOST_OPEN:
                break
            if other is not chat and not other.generation and not other.hub.watchers and other.file.saved and not other.file.problem:
                del self._open[id]

    def _entries(self, words: str) -> tuple[list[LogEntry], set[str] | None]:
        index = Index(self.path)
        try:
            entries = sorted(index.entries(), key=lambda entry: entry.changed, reverse=True)
            return entries, index.holding(words) if words.split() else None
        finally:
            index.close()

    def _search(self, words: str, limit: int, offset: int) -> tuple[list[Any], int, list[LogEntry]]:
        index = Index(self.path)
        try:
            return index.search(words, limit, offset), index.count(words), index.entries()
        finally:
            index.close()

    def _model(self, entry: LogEntry) -> str | None:
        return speaker_of(self._service, entry.served_as, entry.persona)

    def _served(self, file: ChatFile) -> ServedChat:
        return ServedChat(file, self._service, lambda chat: self.hub.publish("chats", {"chat": chat.head(), "deleted": None}))

    def _head(self, entry: LogEntry) -> dict[str, Any]:
        id = Path(entry.name).stem
        chat = self._open.get(id)
        return {
            "id": id,
            "title": entry.title,
            "model": self._model(entry),
            "persona": entry.persona,
            "user": entry.user,
            "started": entry.started,
            "changed": datetime.fromtimestamp(entry.changed / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "messages": entry.turns,
            "first": chat_view.line(entry.first, chat_view.FIRST),
            "folder": entry.folder,
            "tags": list(entry.tags),
            "damages": entry.damages,
            "fault": entry.fault,
            "busy": bool(chat and chat.generation),
        }

    def _file(self, id: str) -> Path:
        return self.path / f"{id}{SUFFIX}"

    def _existing(self, id: str) -> Path:
        path = self._file(id)
        usual = 0 < len(id) <= MOST_NAMES and "\0" not in id and path.parent == self.path and path.stem == id and not id.startswith(".")
        if not usual or path.is_symlink() or not path.is_file():
            raise self._none(id)
        return path

    def _none(self, id: str) -> APIError:
        return APIError(404, f"there is no chat {id[:100]!r}; it was deleted or moved", code="chat_not_found")


def _counted(names: "Counter[str]") -> list[dict[str, Any]]:
    return [{"name": name, "chats": count} for name, count in sorted(names.items())]
