"""A bot in simcord's Discord: its parsers, cache and command tree are discord.py's own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import simcord

from townhall.discord_bot.bot_options import BotOptions
from townhall.discord_bot.persona_bot import PLAIN, PersonaBot
from townhall.logbook.log_reader import Log, read_log
from townhall.server.service import Service

PATIENCE = 120.0  # seconds that simcord waits for the bot to come to rest


@dataclass
class Stage:
    """A server with a channel and two people, and the bot."""

    env: simcord.Env
    bot: PersonaBot
    service: Service
    folder: Path
    notes: list[str]
    guild: Any = None
    general: Any = None
    people: dict[str, Any] = field(default_factory=dict)

    @property
    def me(self) -> str:
        assert self.bot.user
        return self.bot.user.mention

    def said(self, channel: Any = None) -> list[str]:
        """What the bot's messages there read now."""
        history = (channel or self.general).history()
        return [message.content for message in history if message.author.id == self.bot.user.id and message.type in PLAIN]

    def person(self, name: str, nick: str | None = None) -> Any:
        if name not in self.people:
            self.people[name] = self.guild.add_member(self.env.create_user(name), nick=nick)
        return self.people[name]

    async def chat(self, channel: Any = None) -> Log:
        """The log of a channel's chat."""
        chat = await self.bot.talk.chats.find((channel or self.general).id)
        assert chat
        return read_log(chat.file.path)


@asynccontextmanager
async def on_stage(service: Service, folder: Path, first: str = "stacy", **options: Any) -> AsyncIterator[Stage]:
    """Until the bot has come to rest; what it did wrong is raised."""
    notes: list[str] = []
    bot = PersonaBot(BotOptions(first, folder, **options), service, notes.append)
    async with simcord.run(bot, settle_timeout=PATIENCE) as env:
        stage = Stage(env, bot, service, folder, notes)
        stage.guild = env.create_guild(name="Kitchen")
        stage.general = stage.guild.create_text_channel("general")
        await env.settle()
        yield stage
        await bot.queues.close()
        await bot.folder.close()
