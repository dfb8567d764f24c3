"""The bot itself: which messages of Discord are meant for it, once each and in their order."""

import asyncio
import copy
import re
import sys
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress

import discord

from townhall.chats.chat_folder import ChatFolder
from townhall.discord_bot.bot_options import BotOptions
from townhall.discord_bot.channel_chats import ChannelChats
from townhall.discord_bot.channel_queue import ChannelQueues, ChannelWork
from townhall.discord_bot.channel_talk import ChannelTalk
from townhall.discord_bot.slash_commands import CommandList
from townhall.discord_bot.who_said_what import SpokenLine
from townhall.server.service import Service

REMEMBERED = 4096  # messages that came already: Discord sends events again after a resumed session
MOST_MISSED = 100  # messages of a channel that are caught up with
MOST_QUOTED = 500  # characters of a message that another one answers
PLAIN = (discord.MessageType.default, discord.MessageType.reply)


class PersonaBot(discord.Client):
    """Answers where it is mentioned, in its channels, and in direct messages. The service has to be ready before it connects."""

    def __init__(self, options: BotOptions, service: Service, note: Callable[[str], object]):
        """`note` gets sentences for the person who runs it."""
        discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False  # no voice, so no packages for it
        # only to read what is not said to it the bot needs an intent that has to be switched on for it
        intents = discord.Intents(guilds=True, guild_messages=True, dm_messages=True, message_content=bool(options.channels))
        super().__init__(
            intents=intents,
            allowed_mentions=discord.AllowedMentions.none(),
            member_cache_flags=discord.MemberCacheFlags.none(),
            chunk_guilds_at_startup=False,
            max_messages=None,
        )
        self.options, self.service, self._note = options, service, note
        self.queues = ChannelQueues(options.most_waiting, options.most_of_one, self.failed)
        self.folder = ChatFolder(options.chats, service)
        self.tree = CommandList(self)
        self._seen: OrderedDict[int, None] = OrderedDict()
        self._newest: OrderedDict[int, int] = OrderedDict()  # the last message that was taken, by channel
        self._level = asyncio.Event()  # everything that was said while there was no connection has been taken
        self._connected = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._talk: ChannelTalk | None = None

    @property
    def talk(self) -> ChannelTalk:
        """Once it has logged in."""
        assert self._talk
        return self._talk

    def allows(self, user: int) -> bool:
        """May this person talk to it?"""
        return not self.options.users or user in self.options.users

    async def setup_hook(self) -> None:
        """Logged in, not yet connected."""
        assert self.user
        self._talk = ChannelTalk(self.service, ChannelChats(self.folder, self.user.id), self.options.first, self.options.at_once)
        await self.tree.sync()

    async def on_connect(self) -> None:
        if self._connected:
            self._level.clear()  # a new session: what was said meanwhile comes before what is said now

    async def on_ready(self) -> None:
        assert self.user
        try:
            if self._connected:
                await self._catch_up()
            else:
                self._connected = True
                self._note(f"{self.user} is on Discord, in {len(self.guilds)} servers; Ctrl-C ends it")
                self._warn_of_unknown_channels()
        finally:
            self._level.set()

    async def on_message(self, message: discord.Message) -> None:
        await self._level.wait()
        self._take(message)

    async def on_raw_message_delete(self, event: discord.RawMessageDeleteEvent) -> None:
        self.queues.cancel(event.channel_id, event.message_id)

    async def on_raw_bulk_message_delete(self, event: discord.RawBulkMessageDeleteEvent) -> None:
        for id in event.message_ids:
            self.queues.cancel(event.channel_id, id)

    async def on_error(self, event_method: str, /, *args: object, **kwargs: object) -> None:
        if error := sys.exc_info()[1]:
            self.failed(error)

    async def finish(self) -> None:
        """End what is being written, with what there is of it, and leave."""
        await self.queues.close()
        await self.folder.close()
        await self.close()

    def failed(self, error: BaseException) -> None:
        """Say that something could not be done, to the person who runs the bot."""
        self._note(f"something was not answered: {type(error).__name__}: {error}")

    def _take(self, message: discord.Message) -> None:
        """Queue it, where it is meant and comes for the first time."""
        if not self._is_meant(message) or message.id in self._seen:
            return
        self._seen[message.id] = None
        while len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        channel = message.channel.id
        self._newest[channel] = max(message.id, self._newest.get(channel, 0))
        self._newest.move_to_end(channel)
        while len(self._newest) > REMEMBERED:
            self._newest.popitem(last=False)
        lines = self._lines(message)
        work = ChannelWork(lambda work: self.talk.answer(message, lines, work), message.id, message.author.id)
        if lines and not self.queues.put(channel, work):
            self._tasks.add(refusing := asyncio.create_task(self._refuse(message)))
            refusing.add_done_callback(self._tasks.discard)

    async def _refuse(self, message: discord.Message) -> None:
        with suppress(discord.DiscordException, OSError):
            waiting = self.queues.waiting(message.channel.id)
            await message.reply(f"{waiting} messages wait for an answer here already, so I pass this one over; say it again in a moment.")

    def _is_meant(self, message: discord.Message) -> bool:
        if message.author.bot or message.webhook_id or message.type not in PLAIN or not self.allows(message.author.id):
            return False
        if message.guild is None or self.user in message.mentions:
            return True
        channel = message.channel
        names = [str(channel.id), str(channel)]
        if isinstance(channel, discord.Thread):
            names += [str(channel.parent_id), str(channel.parent)]
        return not self.options.channels.isdisjoint(names)

    def _lines(self, message: discord.Message) -> list[SpokenLine]:
        """What was said and by whom; the message that it answers comes first, where that is another person's."""
        lines = []
        answered = message.reference.resolved if message.reference else None
        if isinstance(answered, discord.Message) and answered.author != self.user and (quoted := self._plain(answered)[:MOST_QUOTED]):
            lines.append(SpokenLine(answered.author.display_name, quoted))
        if text := self._plain(message):
            lines.append(SpokenLine(message.author.display_name if message.guild else "", text))
        return lines if text else []

    def _plain(self, message: discord.Message) -> str:
        """Its words, without the mention of the bot, with names in place of other mentions."""
        assert self.user
        spoken = copy.copy(message)
        spoken.content = re.sub(rf"<@!?{self.user.id}>", "", message.content)
        return spoken.clean_content.replace("@\u200b", "@").strip()

    async def _catch_up(self) -> None:
        """Take what was said while there was no session that could be resumed."""
        for id, newest in list(self._newest.items()):
            try:
                channel = self.get_channel(id) or await self.fetch_channel(id)
                if isinstance(channel, discord.abc.Messageable):
                    async for message in channel.history(limit=MOST_MISSED, after=discord.Object(newest), oldest_first=True):
                        self._take(message)
            except (discord.DiscordException, OSError) as error:
                self._note(f"what was said in channel {id} meanwhile cannot be read: {error}")

    def _warn_of_unknown_channels(self) -> None:
        known = {name for guild in self.guilds for channel in (*guild.channels, *guild.threads) for name in (str(channel.id), channel.name)}
        if missing := sorted(self.options.channels - known):
            self._note(f"--channels {', '.join(missing)}: the bot sees no such channel yet; invite it, or let it view the channel")
