"""The flags of a conversation: `townhall chat` takes them, `townhall settings` shows what they come to, `townhall serve` takes some."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from app.sampler_settings import DECLARED
from townhall.cli.chat_options import OPTIONS, ChatOptions
from townhall.cli.settings_files import Setting, resolve
from townhall.conversation import REPEAT_PENALTY


def _complete_personas(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from townhall.persona import list_personas

    named = [CompletionItem(name) for name in list_personas() if name.startswith(incomplete)]
    return [*named, CompletionItem(incomplete, type="file")]


def _complete_settings(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from townhall.cli.settings_files import list_settings

    named = [CompletionItem(name) for name in list_settings() if name.startswith(incomplete)]
    return [*named, CompletionItem(incomplete, type="file")]


def _sampler_flag(name: str) -> Callable[[Any], Any]:
    declared, default, shown = DECLARED[name], _DEFAULTS[name], _DEFAULTS[name] is not None
    help = declared.help if shown else f"{declared.help}  [default: {REPEAT_PENALTY}; with --prompt 1]"
    return click.option(_dashed(name), type=declared.kind, default=default, show_default=shown, metavar=declared.metavar, help=help)


def _flag(name: str) -> Callable[[Any], Any]:
    option, default = OPTIONS[name], _DEFAULTS[name]
    shared: dict[str, Any] = {"help": option.help, "metavar": option.metavar}
    if option.kind is bool:
        words = _dashed(name) if option.flag_alone else f"{_dashed(name)}/--no-{name.replace('_', '-')}"
        return click.option(words, is_flag=True, default=default, help=option.help)
    if option.repeated:
        return click.option(_dashed(name), multiple=True, **shared)
    kind: Any = option.kind
    if option.choices:
        kind = click.Choice(option.choices)
    elif option.kind is int:
        kind = click.IntRange(min=option.least)
    elif option.kind is Path:
        kind = click.Path(path_type=Path)
    if option.value_when_bare:
        shared |= {"is_flag": False, "flag_value": option.value_when_bare}
    if name == "personality":
        shared["shell_complete"] = _complete_personas
    return click.option(_dashed(name), type=kind, default=default, show_default=default is not None, **shared)


def _dashed(name: str) -> str:
    return f"--{name.replace('_', '-')}"


_DEFAULTS = ChatOptions.defaults()
SAMPLER_KEYS = (*list(DECLARED)[:1], "seed", *list(DECLARED)[1:])  # the seed comes second
_CONFIG = click.option(
    "-c",
    "--config",
    multiple=True,
    metavar="NAME|PATH",
    shell_complete=_complete_settings,
    help="settings from a YAML file; may be repeated, the last one wins, and flags win over all (see townhall settings)",
)
_IN_ORDER = ("model", "personality", "prompt", "count", *SAMPLER_KEYS)
_BY_KEY: dict[str, Callable[[Any], Any]] = {
    "config": _CONFIG,
    **{
        name: _sampler_flag(name) if name in DECLARED else _flag(name)
        for name in (*_IN_ORDER, *(name for name in OPTIONS if name not in _IN_ORDER))
    },
}


def chat_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a command with all of them."""
    for flag in reversed(_BY_KEY.values()):
        command = flag(command)
    return command


def some_flags(*keys: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a command with those of them that have these names in Python."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for key in reversed(keys):
            command = _BY_KEY[key](command)
        return command

    return decorate


def given_flags(ctx: click.Context, flags: dict[str, Any]) -> dict[str, Any]:
    """Those that were given on the command line."""
    return {name: value for name, value in flags.items() if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT}


def resolve_flags(ctx: click.Context, config: tuple[str, ...], flags: dict[str, Any]) -> dict[str, Setting]:
    """Every option's value and where it came from. SettingsError for a file that cannot be used."""
    return resolve(ChatOptions.defaults(), config, given_flags(ctx, flags))


def chat_options(ctx: click.Context, config: tuple[str, ...], flags: dict[str, Any]) -> ChatOptions:
    """What files and flags say together."""
    return ChatOptions(**{name: setting.value for name, setting in resolve_flags(ctx, config, flags).items()})
