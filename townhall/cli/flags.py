"""The flags of a conversation: `townhall chat` takes them, `townhall settings` shows what they come to, `townhall serve` takes some."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from app.sampler_settings import DECLARED, flags_of
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


class RareOption(click.Option):
    """A flag that works like any other and is completed, yet stands in --help-samplers instead of --help."""

    def get_help_record(self, ctx: click.Context) -> None:
        """None: --help passes it over."""

    def record(self, ctx: click.Context) -> tuple[str, str] | None:
        """For the other help."""
        return super().get_help_record(ctx)


def _sampler_flag(name: str) -> Callable[[Any], Any]:
    declared, default, shown = DECLARED[name], _DEFAULTS[name], _DEFAULTS[name] is not None
    help = declared.help if shown else f"{declared.help}  [default: {REPEAT_PENALTY}; with --prompt 1]"
    rest: dict[str, Any] = {"type": declared.kind, "show_default": shown}
    if declared.kind is tuple:
        rest = {"multiple": True, "callback": _texts, "show_default": " ".join(repr(text)[1:-1] for text in default)}
    cls = RareOption if declared.rare else click.Option
    return click.option(*flags_of(name), name, cls=cls, default=default, metavar=declared.metavar, help=help, **rest)


def _texts(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    """What a repeated flag lists, as llama.cpp reads it: \\n, \\t and \\\\ are single characters, and the word none is an empty list."""
    escaped = {"n": "\n", "t": "\t", "\\": "\\"}
    return () if given == ("none",) else tuple(re.sub(r"\\([nt\\])", lambda found: escaped[found[1]], text) for text in given)


def samplers_help(ctx: click.Context) -> str:
    """The flags that --help passes over."""
    formatter = ctx.make_formatter()
    with formatter.section("More samplers, in files and in the API by the same names"):
        formatter.write_dl([record for param in ctx.command.params if isinstance(param, RareOption) and (record := param.record(ctx))])
    return formatter.getvalue().rstrip()


def _print_samplers_help(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(samplers_help(ctx))
        ctx.exit()


_HELP_SAMPLERS = click.option(
    "--help-samplers",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_samplers_help,
    help="show the flags of more samplers (DRY, XTC, Mirostat, …) and exit",
)


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
SAMPLER_KEYS = (*list(DECLARED)[:1], "seed", *list(DECLARED)[1:], "help_samplers")  # the seed comes second
_CONFIG = click.option(
    "-c",
    "--config",
    multiple=True,
    metavar="NAME|PATH",
    shell_complete=_complete_settings,
    help="settings from a YAML file; may be repeated, the last one wins, and flags win over all (see townhall settings)",
)
_IN_ORDER = ("model", "personality", "greeting", "lorebook", "knowledge", "prompt", "count", *SAMPLER_KEYS)
_BY_KEY: dict[str, Callable[[Any], Any]] = {
    "config": _CONFIG,
    **{
        name: _HELP_SAMPLERS if name == "help_samplers" else _sampler_flag(name) if name in DECLARED else _flag(name)
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
