"""The talk of each channel: what is said becomes a turn of its chat, and what the persona answers becomes messages."""

import asyncio
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any

import discord
from pydantic import ValidationError

from ext.tinygrad.errors import TownhallError
from townhall.chats.chat_generation import ChatGeneration
from townhall.chats.chat_requests import ChatChanges, ChatSettings, NewMessage, ReplyRequest
from townhall.chats.served_chat import ServedChat
from townhall.discord_bot.channel_chats import ChannelChats
from townhall.discord_bot.channel_queue import ChannelWork
from townhall.discord_bot.reply_stream import ReplyGoneError, ReplyStream
from townhall.discord_bot.who_said_what import SpokenLine, as_turn, display_name, without_cue
from townhall.server.service import Service

FIRST, PACE = 0.25, 1.2  # seconds between two looks at a reply before its first message, and between two edits: Discord takes 5 in 5 s
MOST_NAMES = 8  # speakers of a channel that a reply may not speak for
MOST_SHOWN = 512  # channels of which the last reply's messages are known
_SENTENCE = re.compile(r"[.!?…。！？:\n]")
LONG_ENOUGH = 200  # characters, which are shown though no sentence has ended


class ChannelTalk:
    """Answers in channels; of one channel, one thing at a time."""

    def __init__(self, service: Service, chats: ChannelChats, first: str, at_once: int):
        """`first` is the model id of who speaks in a channel's first chat."""
        self._service, self.chats, self._first = service, chats, first
        self._room = asyncio.Semaphore(at_once)
        self._names: OrderedDict[int, list[str]] = OrderedDict()
        self._shown: OrderedDict[int, tuple[str, list[discord.Message]]] = OrderedDict()  # (chat, messages) of the last reply

    async def answer(self, asked: discord.Message, lines: Sequence[SpokenLine], work: ChannelWork) -> None:
        """Say to the channel's persona what was said, and send what that answers."""
        id = asked.channel.id
        reference = asked.to_reference(fail_if_not_exists=False) if asked.guild else None
        stream = ReplyStream(asked.channel, f"{asked.id:x}", reference)
        chat = await self.chat(id, title_of(asked.channel, asked.author))
        persona = self.persona(chat)
        named = [SpokenLine(display_name(line.name, persona) if line.name else "", line.text) for line in lines]
        names = self._speakers(id, [line.name for line in named if line.name])

        async def begin() -> None:
            await self._stop_at(chat, names)
            await chat.send(NewMessage(text=as_turn(named, [*names, persona])))

        await self._write(id, chat, begin, stream, work)

    async def again(self, channel: discord.abc.Messageable, id: int, nonce: str, work: ChannelWork) -> None:
        """Another reply to what was said last, in the place of the one that stands there."""
        chat = await self.chats.find(id)
        if chat is None:
            return
        shown_of, messages = self._shown.get(id, ("", []))
        stream = ReplyStream(channel, nonce, messages=messages if shown_of == chat.id else ())
        await self._write(id, chat, lambda: chat.reply(ReplyRequest(), None), stream, work)

    async def chat(self, id: int, title: str) -> ServedChat:
        """The channel's chat, or a new one: also where it was with a persona that is not served any more."""
        found = await self.chats.find(id)
        return found if found and found.model else await self.chats.begin(id, self._first, title)

    async def begin(self, id: int, model: str | None, title: str) -> ServedChat:
        """A new chat for the channel, with `model` or with whom it was; its greeting, where there is one, has been said."""
        if model is None:
            former = await self.chats.find(id)
            model = (former.model if former else None) or self._first
        persona = self._service.served_models.find(model).persona
        self._shown.pop(id, None)
        return await self.chats.begin(id, model, title, (persona.greeting,) if persona.greeting else ())

    def persona(self, chat: ServedChat) -> str:
        """The name of who speaks there."""
        return self._service.served_models.find(chat.model or self._first).persona.name

    def _speakers(self, channel: int, new: Sequence[str]) -> list[str]:
        """Who spoke there lately, the newest last."""
        names = self._names.setdefault(channel, [])
        names[:] = [*(name for name in names if name not in new), *dict.fromkeys(new)][-MOST_NAMES:]
        self._names.move_to_end(channel)
        while len(self._names) > MOST_SHOWN:
            self._names.popitem(last=False)
        return names

    async def _stop_at(self, chat: ServedChat, names: Sequence[str]) -> None:
        """Have replies end where they would speak for one of these."""
        settings = chat.details()["settings"]
        stops = sorted(f"\n{name}:" for name in names)
        if stops and stops != settings.get("stop"):
            with suppress(ValidationError):  # a person wrote others into the log: `send` says so
                await chat.set(ChatChanges(settings=ChatSettings.model_validate({**settings, "stop": stops})))

    async def _write(self, id: int, chat: ServedChat, begin: Callable[[], Awaitable[Any]], stream: ReplyStream, work: ChannelWork) -> None:
        """Have the model write, and show it as it grows. What cannot be answered is said in the reply's place."""
        async with AsyncExitStack() as thinking:
            with suppress(discord.DiscordException, OSError):  # a channel in which one cannot type may still take messages
                await thinking.enter_async_context(stream.typing())
            try:
                async with self._room:
                    if work.stopped:
                        return
                    await begin()
                    if generation := chat.generation:
                        work.on_stop = lambda: self._stop(generation)
                        if work.stopped:  # meanwhile
                            work.on_stop()
                        await self._follow(generation, stream, thinking, self.persona(chat))
                text = self._said(chat, generation)
            except ReplyGoneError:
                if generation := chat.generation:
                    self._stop(generation)
                    await generation.ended.wait()
                return
            except TownhallError as error:
                text = f"*I cannot answer that: {error}*"
        with suppress(ReplyGoneError):
            if work.withdrawn:
                return await stream.withdraw()
            await stream.finish(without_cue(text, self.persona(chat)))
            self._shown[id] = chat.id, stream.messages
            self._shown.move_to_end(id)
            while len(self._shown) > MOST_SHOWN:
                self._shown.popitem(last=False)

    async def _follow(self, generation: ChatGeneration, stream: ReplyStream, thinking: AsyncExitStack, persona: str) -> None:
        """Show a reply while it is written, until it is written."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(PACE if stream.messages else FIRST):
                    await generation.ended.wait()
            if generation.ended.is_set():
                return
            text = without_cue(generation.text, persona)
            if stream.messages or len(text) > LONG_ENOUGH or _SENTENCE.search(text):
                await stream.show(text)
                await thinking.aclose()

    def _said(self, chat: ServedChat, generation: ChatGeneration | None) -> str:
        """What the reply came to, an error behind it."""
        path = chat.tree.path()
        node = chat.tree.nodes.get(generation.message or 0) if generation else path[-1] if path else None
        text = node.turn.text if node and node.turn.role == "assistant" else generation.text if generation else ""
        error = generation.error if generation else None
        return "\n".join(filter(None, [text, f"*The reply ends here: {error}*" if error else ""]))

    def _stop(self, generation: ChatGeneration) -> None:
        if generation.job:
            self._service.cancel(generation.job)


def title_of(channel: Any, person: discord.abc.User) -> str:
    """What a chat of that channel is called, or one with that person alone."""
    if isinstance(channel, discord.DMChannel):
        return f"@{person.display_name}"
    guild = getattr(channel, "guild", None)
    return f"#{channel}" + (f" · {guild}" if guild else "")
