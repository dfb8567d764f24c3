"""All conversations of a folder, and those of them that are open in some tab."""

import json
from dataclasses import dataclass
from pathlib import Path

from townhall.logbook import log_reader
from townhall.logbook.log_index import Index
from townhall.logbook.log_reader import read_log
from townhall.logbook.log_writer import SUFFIX, new_id
from townhall.web.client import Client, ModelChoice, WebError
from townhall.web.live_chat import BUSY, LiveChat
from townhall.web.safe_markdown import shortened

MOST = 200  # chats that the list names
LONGEST = 48  # characters of a chat's name in the list
LONGEST_NAME = 120  # and of one that can be given


@dataclass(frozen=True)
class ChatListEntry:
    """A line of the list of chats."""

    id: str
    title: str
    name: str  # the title at its full length, to be written anew
    persona: str
    started: str


class ChatStore:
    """Ids are names of files in `folder`; nothing else on the disk can be reached through them."""

    def __init__(self, folder: Path, client: Client, served_models: list[ModelChoice]):
        self.folder, self._client, self.served_models = folder, client, served_models
        self._open: dict[str, LiveChat] = {}

    def served_model(self, id: str) -> ModelChoice:
        """By its model id; the first one for an id that is not known."""
        return next((served_model for served_model in self.served_models if served_model.id == id), self.served_models[0])

    def begin(self, served_model: ModelChoice) -> LiveChat:
        """A chat that is on the disk with its first turn."""
        path = self.folder / f"{new_id()}{SUFFIX}"
        self._open[path.stem] = chat = LiveChat(path, served_model, self._client)
        return chat

    def find(self, id: str) -> LiveChat:
        """An open chat, or one from the disk; WebError where there is none."""
        if chat := self._open.get(id):
            return chat
        path = self._path(id)
        persona = str(read_log(path).head.get("persona") or "")
        served_model = next((served_model for served_model in self.served_models if served_model.name == persona), None)
        if served_model is None:
            raise WebError(f"This chat was with {persona or 'somebody'}, whom this server does not have; start it with that persona.")
        self._open[id] = chat = LiveChat(path, served_model, self._client)
        return chat

    @property
    def stamp(self) -> str:
        """Another one whenever a chat came or went."""
        try:
            return str(self.folder.stat().st_mtime_ns)
        except OSError:
            return ""

    def saved(self) -> list[ChatListEntry]:
        """The newest first."""
        index = Index(self.folder)
        try:
            entries = index.entries()[:MOST]
        finally:
            index.close()
        saved = []
        for entry in entries:
            name = shortened(log_reader.printable(entry.title or entry.first), LONGEST_NAME)
            if not entry.fault:
                saved.append(ChatListEntry(Path(entry.name).stem, shortened(name, LONGEST), name, entry.persona, entry.started))
        return saved

    def delete(self, id: str) -> None:
        """For good."""
        chat = self._open.get(id)
        if chat and chat.live:
            raise WebError(BUSY)
        try:
            self._path(id).unlink()
        except OSError as error:
            raise WebError(f"This chat cannot be deleted: {error.strerror or error}.") from error
        self._open.pop(id, None)

    def exported(self, id: str, form: str) -> str:
        """The whole chat as "md" or "json"."""
        log = read_log(self._path(id))
        if form == "md":
            return log_reader.as_markdown(log)
        return json.dumps(log_reader.as_json(log) | {"path": log.path.name}, ensure_ascii=False, indent=2, default=str) + "\n"

    def _path(self, id: str) -> Path:
        path = self.folder / f"{id}{SUFFIX}"
        if path.parent != self.folder or Path(path.name).stem != id or path.is_symlink() or not path.is_file():
            raise WebError("This chat is not there any more; it was deleted or moved.")
        return path

    async def close(self) -> None:
        """Hang up every reply."""
        for chat in self._open.values():
            await chat.stop()
