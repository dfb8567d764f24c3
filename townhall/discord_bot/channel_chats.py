"""Which chat of the store is a channel's, also after a restart."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from townhall.chats.chat_folder import ChatFolder
from townhall.chats.chat_requests import ChatChanges
from townhall.chats.served_chat import ServedChat
from townhall.server.errors import APIError

FOLDER = "Discord"  # of the chat list
MOST_TITLE, MOST_BYTES = 200, 8 << 20


class ChannelChats:
    """A chat a channel, thread or direct conversation; the file `.discord-ID.json` of the store names them."""

    def __init__(self, folder: ChatFolder, bot: int):
        """`bot` is the bot's user id: several bots keep their chats in one folder."""
        self._folder, self._file = folder, folder.path / f".discord-{bot}.json"
        self._chats = _read(self._file)
        self._writing = asyncio.Lock()

    async def find(self, channel: int) -> ServedChat | None:
        """The channel's chat as it is now; None where there is none, or where it was deleted meanwhile."""
        if (id := self._chats.get(str(channel))) is None:
            return None
        try:
            return await self._folder.find(id)
        except APIError as error:
            if error.status != 404:
                raise
            return None

    async def begin(self, channel: int, model: str, title: str, greeting: tuple[str, ...] = ()) -> ServedChat:
        """A fresh chat of the channel, in which `greeting` has been said; the former one stays in the store."""
        chat = self._folder.begin(model)
        if greeting:
            chat.greet(greeting, 0)
        await chat.set(ChatChanges(title=title[:MOST_TITLE], folder=FOLDER))
        self._chats[str(channel)] = chat.id
        async with self._writing:
            await asyncio.to_thread(_write, self._file, dict(self._chats))
        return chat


def _read(file: Path) -> dict[str, str]:
    """{} where there is none, or where it is damaged: then channels begin anew, and no log is lost."""
    try:
        with file.open("rb") as opened:
            known = json.loads(opened.read(MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return {str(channel): chat for channel, chat in known.items() if isinstance(chat, str)} if isinstance(known, dict) else {}


def _write(file: Path, chats: dict[str, Any]) -> None:
    part = file.with_suffix(f".{os.urandom(4).hex()}.part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as opened:
            json.dump(chats, opened)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
