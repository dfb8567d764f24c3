"""The flags of a conversation: `townhall chat` takes them, `townhall settings` shows what they come to, `townhall serve` takes some."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from app.sampler_settings import DECLARED
from townhall.cli.chat_options import ChatOptions
from townhall.context.strategies import STRATEGIES
from townhall.conversation import MAX_REPLY, REPEAT_PENALTY
from townhall.settings_files import Setting, resolve
from townhall.template import FORMATS


def _complete_personas(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from townhall.persona import list_personas

    named = [CompletionItem(name) for name in list_personas() if name.startswith(incomplete)]
    return [*named, CompletionItem(incomplete, type="file")]


def _complete_settings(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from townhall.settings_files import list_settings

    named = [CompletionItem(name) for name in list_settings() if name.startswith(incomplete)]
    return [*named, CompletionItem(incomplete, type="file")]


def _sampler_flags() -> list[Callable[[Any], Any]]:
    """A flag for each declared setting of the sampler; the seed comes second."""
    defaults = ChatOptions.defaults()
    flags = []
    for name, declared in DECLARED.items():
        default = defaults[name]
        help = declared.help if default is not None else f"{declared.help}  [default: {REPEAT_PENALTY}; with --prompt 1]"
        flag = f"--{name.replace('_', '-')}"
        flags.append(
            click.option(flag, type=declared.kind, default=default, show_default=default is not None, metavar=declared.metavar, help=help)
        )
    seed = click.option("--seed", type=int, metavar="S", help="the same seed gives the same answers  [default: a new one each time]")
    return [flags[0], seed, *flags[1:]]


SAMPLER_KEYS = (*list(DECLARED)[:1], "seed", *list(DECLARED)[1:])

FLAGS = [
    click.option(
        "-c",
        "--config",
        multiple=True,
        metavar="NAME|PATH",
        shell_complete=_complete_settings,
        help="settings from a YAML file; may be repeated, the last one wins, and flags win over all (see townhall settings)",
    ),
    click.option(
        "--model",
        type=click.Path(path_type=Path),
        help="model file, or fake:echo or fake:script=FILE  [default: the one that pull_llama.sh fetches]",
    ),
    click.option(
        "--personality",
        default="stacy",
        show_default=True,
        metavar="NAME",
        shell_complete=_complete_personas,
        help="stacy, george, gary, lexie, or a YAML file",
    ),
    click.option("--prompt", metavar="TEXT", help="complete this text, without a persona, and exit"),
    click.option(
        "--count", type=click.IntRange(min=1), default=MAX_REPLY, show_default=True, metavar="N", help="tokens in an answer, at most"
    ),
    *_sampler_flags(),
    click.option("--max-context", type=int, default=1024, show_default=True, metavar="N", help="context window in tokens"),
    click.option(
        "--context", type=click.Choice(list(STRATEGIES)), default="slide", show_default=True, help="how a long talk is made to fit"
    ),
    click.option(
        "--format", type=click.Choice(["auto", *FORMATS]), default="auto", show_default=True, help="prompt format; auto follows the model"
    ),
    click.option("--timing/--no-timing", default=False, help="print tokens and seconds after each answer"),
    click.option("--profile/--no-profile", default=False, help="print where the time went at the end"),
    click.option("--markdown/--no-markdown", default=False, help="show answers in Markdown as it is meant, at a terminal"),
    click.option("--size", metavar="SIZE", help="7B, 13B, …: a folder under app/models/llama/weights, instead of --model"),
    click.option("--gen", metavar="GEN", help="LLaMA generation that --size belongs to  [default: 1]"),
    click.option(
        "--quantize",
        type=click.Choice(["int8"]),
        is_flag=False,
        flag_value="int8",
        metavar="[int8]",
        help="make float weights 8-bit integers",
    ),
    click.option("--eos", multiple=True, metavar="TOKEN", help="end an answer at this token (or id) and at no other; may be repeated"),
    click.option("--device", metavar="NAME", help="CPU, CL, CL:1, CUDA, … or part of a name that townhall devices lists; wins over DEV"),
    click.option("--require", type=click.Choice(["gpu", "cpu"]), help="end with an error unless the weights sit on such a device"),
    click.option("--cache/--no-cache", default=True, help="store and restore what the model read of a persona  [default: do]"),
    click.option("--log/--no-log", default=True, help="keep the conversation as a text file (see townhall log)  [default: do]"),
    click.option(
        "--log-to",
        type=click.Path(path_type=Path),
        metavar="PATH",
        help="in this folder, or at the end of this .md file  [default: your data folder]",
    ),
    click.option("--json", is_flag=True, help="print one JSON object per answer"),
]


def chat_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a command with all of them."""
    for flag in reversed(FLAGS):
        command = flag(command)
    return command


def some_flags(*keys: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a command with those of them that have these names in Python."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for key in reversed(keys):
            command = _BY_KEY[key](command)
        return command

    return decorate


def _key(flag: Callable[[Any], Any]) -> str:
    def command() -> None:
        """Takes the flag, to see what it is called."""

    return str(flag(command).__click_params__[0].name)


_BY_KEY = {_key(flag): flag for flag in FLAGS}


def given_flags(ctx: click.Context, flags: dict[str, Any]) -> dict[str, Any]:
    """Those that were given on the command line."""
    return {name: value for name, value in flags.items() if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT}


def resolve_flags(ctx: click.Context, config: tuple[str, ...], flags: dict[str, Any]) -> dict[str, Setting]:
    """Every option's value and where it came from. SettingsError for a file that cannot be used."""
    return resolve(ChatOptions.defaults(), config, given_flags(ctx, flags))


def chat_options(ctx: click.Context, config: tuple[str, ...], flags: dict[str, Any]) -> ChatOptions:
    """What files and flags say together."""
    return ChatOptions(**{name: setting.value for name, setting in resolve_flags(ctx, config, flags).items()})
