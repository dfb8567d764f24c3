"""A bot from its token to Ctrl-C: what can go wrong on the way is said in a sentence."""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import aiohttp
import discord

from townhall.discord_bot.bot_options import BotOptions, DiscordError
from townhall.discord_bot.bot_token import NotedLog, without_token
from townhall.discord_bot.persona_bot import PersonaBot
from townhall.server.service import Service

T = TypeVar("T")
PORTAL = "https://discord.com/developers/applications"
REFUSED = 4004  # the gateway's code for a token that is none any more


def run(token: str, file: Path, options: BotOptions, service: Service, note: Callable[[str], object]) -> None:
    """Talk on Discord until SIGINT or SIGTERM. DiscordError for what Discord refuses; raises what kept the model from being loaded."""
    log, handler = logging.getLogger("discord"), NotedLog(note, token)
    before = log.propagate
    log.addHandler(handler)
    log.propagate = False
    try:
        asyncio.run(_run(token, file, options, service, note))
    except KeyboardInterrupt:  # where the event loop takes no signals
        pass
    finally:
        log.removeHandler(handler)
        log.propagate = before


async def _run(token: str, file: Path, options: BotOptions, service: Service, note: Callable[[str], object]) -> None:
    loop, ending = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):
            loop.add_signal_handler(number, ending.set)
    loaded: asyncio.Future[None] = loop.create_future()

    def settled(error: BaseException | None) -> None:
        if error:
            loaded.set_exception(error)
        else:
            loaded.set_result(None)

    def report(error: BaseException | None) -> None:
        loop.call_soon_threadsafe(lambda: None if loaded.done() else settled(error))

    async with PersonaBot(options, service, lambda said: note(without_token(said, token))) as bot:
        try:
            # Discord first: a token that is refused is known before a model is loaded
            await _until(ending, bot.login(token))
            if not ending.is_set():
                service.start(lambda: report(None), report)
                await _until(ending, loaded)
            if not ending.is_set():
                await _until(ending, bot.connect())
        except discord.LoginFailure as error:
            raise _refused(file) from error
        except discord.PrivilegedIntentsRequired as error:
            raise DiscordError(
                "--channels needs the Message Content Intent, which is off for this bot; "
                f"switch it on on the bot's page at {PORTAL}, or leave --channels out"
            ) from error
        except discord.ConnectionClosed as error:
            if error.code == REFUSED:
                raise _refused(file) from error
            raise DiscordError(f"Discord closed the connection for good (code {error.code}); start again in a moment") from error
        except discord.HTTPException as error:
            said = without_token(" ".join(str(error).split()), token)[:300]
            raise DiscordError(f"Discord does not let the bot in: {said}; try again in a moment") from error
        except (aiohttp.ClientError, OSError) as error:
            raise DiscordError(f"Discord cannot be reached ({error or type(error).__name__}); is the network there?") from error
        finally:
            await bot.finish()
            service.drain()
    await asyncio.to_thread(service.close)


def _refused(file: Path) -> DiscordError:
    return DiscordError(f"Discord refuses the token in --token-file {file}; make a new one with Reset Token on the bot's page at {PORTAL}")


async def _until(ending: asyncio.Event, doing: Awaitable[T]) -> T | None:
    """The result, or None where the end comes first."""
    task, ended = asyncio.ensure_future(doing), asyncio.ensure_future(ending.wait())
    await asyncio.wait((task, ended), return_when=asyncio.FIRST_COMPLETED)
    ended.cancel()
    if task.done():
        return task.result()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return None
