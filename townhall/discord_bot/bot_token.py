"""The token of a bot: read from a file, and kept out of everything that is written."""

import logging
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

from townhall.discord_bot.bot_options import DiscordError

MOST = 4096  # bytes
HIDDEN = "<token>"
_INTERACTION = re.compile(r"(/(?:interactions|webhooks)/\d+/)[^/\s?]+")  # Discord's own tokens, in addresses


def read_token(file: Path, note: Callable[[str], object]) -> str:
    """The token in `file`; DiscordError where there is none. `note` gets a sentence where others can read it."""
    try:
        with file.open("rb") as opened:
            mode, content = os.fstat(opened.fileno()).st_mode, opened.read(MOST + 1)
    except OSError as error:
        raise DiscordError(f"--token-file {file} cannot be read: {error.strerror or error}") from error
    text = content.decode("utf-8-sig", "replace").strip()
    if not text:
        raise DiscordError(f"--token-file {file} is empty; put the bot's token into it, from the page Bot of discord.com/developers")
    text = text.removeprefix("Bot ").strip()
    if len(content) > MOST or not text.isascii() or not text.isprintable() or " " in text:
        raise DiscordError(f"--token-file {file} holds no token: that is one word of letters, digits, dots and dashes")
    if os.name == "posix" and stat.S_ISREG(mode) and mode & (stat.S_IRGRP | stat.S_IROTH):
        note(f"--token-file {file} can be read by others on this machine: chmod 600 {file}")
    return text


def without_token(text: str, token: str) -> str:
    """`text` without the token, and without those by which Discord lets anyone answer a command."""
    return _INTERACTION.sub(rf"\g<1>{HIDDEN}", text.replace(token, HIDDEN) if token else text)


class NotedLog(logging.Handler):
    """What discord.py logs from warnings on, as a line each; tokens and tracebacks are left out."""

    def __init__(self, note: Callable[[str], object], token: str):
        super().__init__(logging.WARNING)
        self._note, self._token = note, token

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        error = record.exc_info[1] if record.exc_info else None
        if error:
            text += f" ({type(error).__name__}: {error})"
        self._note(f"discord: {without_token(' '.join(text.split()), self._token)}")
