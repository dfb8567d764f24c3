"""A reply as messages of a channel: sent, edited while it grows, and brought to its end whatever the network does."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import aiohttp
import discord

from townhall.discord_bot.message_parts import split

T = TypeVar("T")
DELAYS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # seconds before another try
NO_WORDS = "…"  # where the model says nothing: Discord takes no empty message


class ReplyGoneError(Exception):
    """A message of the reply was deleted, or the channel is closed to the bot."""


class ReplyStream:
    """Each message is sent with a nonce, by which Discord knows one that is sent again because its answer was lost."""

    def __init__(
        self,
        channel: discord.abc.Messageable,
        nonce: str,
        reference: discord.MessageReference | None = None,
        messages: Sequence[discord.Message] = (),
    ):
        """`reference` is the message that the first one answers; `messages` are those of a former reply, which are written over."""
        self._channel, self._nonce, self._reference = channel, nonce, reference
        self.messages = list(messages)
        self._shown = [message.content for message in messages]
        self._replaces = bool(messages)

    def typing(self) -> discord.context_managers.Typing:
        """As long as this is entered, the channel shows that an answer is being thought of."""
        return self._channel.typing()

    async def show(self, text: str) -> None:
        """Bring the messages to read as `text`. What the network does not let through now is made up for later."""
        try:
            await self._bring(text, lambda act: act())
        except _PASSING:
            return

    async def finish(self, text: str) -> None:
        """The same for good; tried again for a minute where the network fails."""
        await self._bring(text.strip() or NO_WORDS, _persistently)
        await self._delete(len([part for part in split(text) if part.shown]) or 1)

    async def withdraw(self) -> None:
        """Delete what was sent."""
        await self._delete(0)

    async def _bring(self, text: str, doing: Callable[[Callable[[], Awaitable[discord.Message]]], Awaitable[discord.Message]]) -> None:
        shown = [part.shown for part in split(text) if part.shown]
        for at, content in enumerate(shown):
            if at < len(self.messages) and self._shown[at] == content:
                continue
            try:
                message = await doing(lambda at=at, content=content: self._put(at, content))  # type: ignore[misc]
            except discord.NotFound as error:
                if not self._replaces:
                    raise ReplyGoneError(str(error)) from error
                self.messages, self._shown, self._replaces = [], [], False  # the former reply is not there any more
                return await self._bring(text, doing)
            except discord.Forbidden as error:
                raise ReplyGoneError(str(error)) from error
            self.messages[at:] = [message, *self.messages[at + 1 :]]
            self._shown[at:] = [content, *self._shown[at + 1 :]]

    async def _put(self, at: int, content: str) -> discord.Message:
        if at < len(self.messages):
            return await self.messages[at].edit(content=content)
        reference = self._reference if at == 0 else None
        nonce = f"{self._nonce}-{at}"
        return await self._channel.send(content, nonce=nonce, reference=reference)  # type: ignore[arg-type]

    async def _delete(self, keep: int) -> None:
        for message in self.messages[keep:]:
            try:
                await _persistently(message.delete)
            except discord.HTTPException:
                pass  # a person was quicker, or it stays
        del self.messages[keep:], self._shown[keep:]


_PASSING = (aiohttp.ClientError, OSError, asyncio.TimeoutError, discord.DiscordServerError)


async def _persistently(act: Callable[[], Awaitable[T]]) -> T:
    """Do it, again and again where the network or Discord fails."""
    for delay in DELAYS:
        try:
            return await act()
        except _PASSING:
            pass
        except discord.HTTPException as error:
            if error.status != 429:  # one without an end to wait for: others of this address asked too much
                raise
        await asyncio.sleep(delay)
    return await act()
