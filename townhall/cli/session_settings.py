"""/settings: shows and changes the settings of a running session, checked like those of a settings file."""

from typing import Any

import yaml

from townhall.cli.chat_options import ChatOptions
from townhall.cli.chat_state import ChatState
from townhall.errors import CommandError
from townhall.yaml_file import nearest

# what cannot change while a session runs, and what to do instead; everything else can
FIXED = {
    "model": "use /model PATH",
    "size": "use /model PATH",
    "gen": "use /model PATH",
    "personality": "use /persona NAME",
    "log_to": "use /branch, or /save PATH",
}
AT_START = ("max_context", "quantize", "eos", "device", "require", "cache", "log", "profile")
NEW_LOG = ("context", "format")  # how prompts are laid out: a log says that once


def show(options: ChatOptions, key: str = "") -> str:
    """All settings, or one."""
    from townhall.settings_schema import Settings

    values = {name: getattr(options, name) for name in Settings.model_fields if hasattr(options, name)}
    if not key:
        width = max(map(len, values))
        return "\n".join(f"{name:<{width}}  {_spelled(value)}" for name, value in values.items())
    _known(key, list(values))
    return f"{key} is {_spelled(values[key])}; it takes {Settings.model_fields[key].description}"


def change(chat_state: ChatState, key: str, value: str) -> str:
    """Set one, and say so. CommandError names the fault and the mend; other TownhallErrors come from what the setting is for."""
    from townhall.settings_schema import Settings, fault

    _known(key, [name for name in Settings.model_fields if hasattr(chat_state.options, name)])
    if key in FIXED:
        raise CommandError(f"{key} cannot be set in a session; {FIXED[key]}")
    if key in AT_START:
        flag = f"--{key.replace('_', '-')}"
        raise CommandError(f"{key} cannot change while the session runs; leave, and start it again with {flag}")
    parsed = parse(value)
    if found := fault({key: parsed}):
        raise CommandError(found[1])
    in_new_log = chat_state.set(key, parsed)
    where = f"; the talk goes on in {chat_state.keeper.path}" if in_new_log and chat_state.keeper else ""
    return f"{key} is {_spelled(getattr(chat_state.options, key))} for this session{where}"


def parse(value: str) -> Any:
    """As a settings file would take it."""
    try:
        return yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError):
        return value


def _known(key: str, keys: list[str]) -> None:
    if key not in keys:
        raise CommandError(f"there is no setting {key[:40]!r}; {nearest(key, keys, '/settings takes')}")


def _spelled(value: Any) -> str:
    if value is None or value == ():
        return "not set"
    return str(value).lower() if isinstance(value, bool) else ", ".join(value) if isinstance(value, tuple) else str(value)
