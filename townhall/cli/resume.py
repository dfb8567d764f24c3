"""`townhall chat --resume`: which log that is, and the options that its conversation was held with."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from townhall.cli.chat_options import ChatOptions
from townhall.cli.log import open_index
from townhall.cli.replay import options_of
from townhall.cli.settings_files import Setting
from townhall.errors import LogError
from townhall.logbook.log_reader import Log, read_log
from townhall.logbook.log_writer import SUFFIX
from townhall.logbook.logged_chat import COMPLETION

# a log says these once, for all that is in it
ONCE = ("model", "size", "gen", "quantize", "lora", "eos", "personality", "format", "context", "max_context", "kv")


def find_log(name: str, place: Path | None) -> Log:
    """The log that is called so: an id or its beginning, a path, or "last", the newest that can be gone on with. LogError for others."""
    index = open_index(place.parent if place and place.suffix == SUFFIX else place)
    log = read_log(index.last(lambda log: not _refusal(log)) if name == "last" else index.find(name))
    if refusal := _refusal(log):
        raise LogError(refusal)
    return log


def _refusal(log: Log) -> str:
    """Why it cannot be gone on with, and what to do instead."""
    settings = log.head.get("settings")
    if log.head.get("kind") == COMPLETION:
        return f"log {log.path} holds a text that was carried on, and no conversation; `townhall log list` names others"
    if isinstance(settings, dict) and "server" in settings:
        return f"log {log.path} was kept by townhall web, and goes on there; to take it up here: townhall chat, then /load {log.id}"
    return ""


def resume_options(log: Log, resolved: Mapping[str, Setting]) -> ChatOptions:
    """The log's own, but for flags that were given. LogError where one would change what the log says once."""
    held = options_of(log, None)
    values = {name: setting.value for name, setting in resolved.items()}
    for name in (*held.that_matter(), "lora"):
        before = getattr(held, name)
        if resolved[name].source != "flag":
            values[name] = before
        elif name in ONCE and values[name] != before:
            flag = f"--{name.replace('_', '-')}"
            raise LogError(
                f"{flag} {values[name]} is not what log {log.path} was held with ({before}); leave it out, "
                f"or take the talk up with townhall chat {flag} {values[name]} and /load {log.id}"
            )
    return ChatOptions(**{field.name: values[field.name] for field in fields(ChatOptions)})
