"""`townhall discord`: a persona on Discord, until Ctrl-C."""

from pathlib import Path
from typing import Any

import click

from townhall.cli import terminal
from townhall.cli.flags import chat_options, some_flags
from townhall.cli.model_loading import load
from townhall.cli.serve import SHARED, answering, chat_folder, max_tokens, unadapted
from townhall.errors import ModelError

EPILOG = """\b
Examples:
  townhall discord --token-file token.txt --persona stacy
  townhall discord --token-file token.txt --channels general --channels help
  townhall discord --token-file token.txt --allow-user 175928847299117063
docs/discord.md says how to make a bot and invite it.
"""


@click.command(help="Talk on Discord: where the bot is mentioned, in its channels, and in direct messages.", epilog=EPILOG)
@click.option("--token-file", required=True, type=click.Path(path_type=Path), help="file with the bot's token")
@click.option(
    "--persona",
    "personas",
    multiple=True,
    metavar="NAME",
    help="who may speak, or a YAML file; may be repeated, the first one speaks until /persona  [default: all, Stacy first]",
)
@click.option(
    "--channels",
    multiple=True,
    metavar="NAME|ID",
    help="answer every message of this channel and its threads; may be repeated, or a list with commas",
)
@click.option("--allow-user", multiple=True, metavar="ID", help="answer only this person, by the user's id; may be repeated")
@some_flags(*SHARED)
@max_tokens
@click.option("--slots", type=click.IntRange(1, 256), help="conversations kept at a time  [default: as memory allows, at most 16]")
@click.option("--timeout", type=click.FloatRange(min=1), default=600.0, show_default=True, metavar="S", help="seconds a reply may take")
@some_flags("log_to")
@click.pass_context
def discord(
    ctx: click.Context,
    /,
    config: tuple[str, ...],
    token_file: Path,
    personas: tuple[str, ...],
    channels: tuple[str, ...],
    allow_user: tuple[str, ...],
    slots: int | None,
    timeout: float,
    **flags: Any,
) -> int:
    chat = chat_options(ctx, config, flags)
    named, users = channel_names(channels), user_ids(allow_user)
    from townhall.discord_bot.bot_token import read_token

    token = read_token(token_file, terminal.note)
    try:
        from townhall.discord_bot.bot_options import BotOptions
        from townhall.discord_bot.bot_runner import run
        from townhall.server.serve_options import Limits
        from townhall.server.service import Service
    except ModuleNotFoundError as error:
        raise ModelError(f"townhall discord needs the package {error.name}: pip install 'townhall[discord]'") from error
    from townhall.prefix_cache import PrefixCache

    folder, limits = chat_folder(chat), Limits(request=timeout)
    options = answering(chat, personas, slots=slots, chats=folder, limits=limits)
    heads = PrefixCache.of_user(terminal.note) if chat.cache and not chat.fake else None
    service = Service(options, lambda: load(unadapted(chat), serve=True), heads, terminal.note)
    run(token, token_file, BotOptions(options.first, folder, named, users, limits.queue), service, terminal.note)
    return 0


def channel_names(given: tuple[str, ...]) -> frozenset[str]:
    """Names and ids; ModelError for an empty one."""
    names = [name.strip().removeprefix("#") for text in given for name in text.split(",")]
    if "" in names:
        raise ModelError("--channels takes a channel's name or id, and one of them is empty; write --channels general")
    return frozenset(names)


def user_ids(given: tuple[str, ...]) -> frozenset[int]:
    """ModelError for what is no id: names can be changed, and taken by others."""
    texts = [text.strip() for one in given for text in one.split(",")]
    for text in texts:
        if not (text.isascii() and text.isdecimal() and len(text) <= 20):
            raise ModelError(
                f"--allow-user {text[:40]!r} is no user's id; switch Developer Mode on in Discord's settings (Advanced), "
                "then choose Copy User ID on the person"
            )
    return frozenset(map(int, texts))
