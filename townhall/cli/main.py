"""`townhall`: the command group; a command's module is imported only when that command is called."""

import errno
import importlib
import re
import sys
from collections.abc import Sequence

import click

from ext.tinygrad.deferred_imports import kept_imports
from ext.tinygrad.errors import TownhallError
from townhall import __version__

COMMANDS = {
    "chat": ("townhall.cli.chat", "Talk to a persona, or complete a text with --prompt."),
    "watch": ("townhall.cli.watch", "Answer in text files as they are saved, beside your editor."),
    "serve": ("townhall.cli.serve", "Serve the personas through OpenAI's API."),
    "web": ("townhall.cli.web", "Talk to the personas on a page in the browser."),
    "discord": ("townhall.cli.discord", "Talk to people on Discord as a persona."),
    "swarm": ("townhall.cli.swarm", "Serve models from several processes or machines, as one API."),
    "character": ("townhall.cli.character", "Import, export, show, make and edit character cards."),
    "inspect": ("townhall.cli.inspect", "Say what a checkpoint holds: sizes, types, vocabulary, memory, licence."),
    "fit": ("townhall.cli.fit", "Plan which models fit which device's memory, and what would fit."),
    "delta": ("townhall.cli.delta", "Apply, make, verify or fetch deltas: weights given as a difference from others."),
    "lora": ("townhall.cli.lora", "Inspect adapters, merge them, or extract one from two checkpoints."),
    "convert": ("townhall.cli.convert", "Turn any checkpoint into one GGUF file, quantised or not."),
    "bench": ("bench.command", "Measure the speed of this machine, beside llama.cpp."),
    "warm": ("townhall.cli.warm", "Compile and pack in advance what the first chat would wait for."),
    "settings": ("townhall.cli.settings", "Show the settings that files and flags come to, and where each was said."),
    "library": ("townhall.cli.library", "Keep documents in libraries, and search them."),
    "train": ("townhall.cli.train", "Train a LoRA adapter on conversations."),
    "data": ("townhall.cli.data", "Make, convert and check conversations to train on."),
    "log": ("townhall.cli.log", "Find and read the conversations that were kept."),
    "replay": ("townhall.cli.replay", "Repeat a kept conversation, and name the first token that differs."),
    "completion": ("townhall.cli.shell_completion", "Print what bash, zsh or fish needs to complete commands and flags."),
    "devices": ("townhall.cli.devices", "List the devices that work here, and why the others do not."),
}


EPILOG = """\b
Every command has its own --help.
\b
Examples:
  townhall chat --personality gary
  townhall settings -c experiment
  townhall log show last
\b
Exit codes:
  0    it is done
  1    townhall replay found a difference; with a traceback: a bug
  2    wrong input, said in one sentence
  130  interrupted by Ctrl-C
"""


class LazyGroup(click.Group):
    """Knows its commands' names and help by heart, so that `--help` imports none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        with kept_imports():
            module = importlib.import_module(COMMANDS[cmd_name][0])
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help) for name, (_, help) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    help="Townhall: personas that talk, on a LLaMA written by hand in tinygrad.",
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
@click.version_option(__version__, prog_name="townhall", message="%(prog)s %(version)s")
def cli() -> None:
    pass


def main(args: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code: 0, 2 for wrong input (one sentence on stderr), 130 when interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character shows "?", it does not end the session
    try:
        result = cli.main(args=None if args is None else list(args), prog_name="townhall", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except TownhallError as error:
        return _complain(str(error))
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f" (see {context.command_path} --help)" if context else ""
        return _complain(f"{in_plain_words(error.format_message().rstrip('.'))}{hint}")
    except OSError as error:
        if error.filename is None and error.errno != errno.ENOSPC:
            raise
        place = error.filename or "where this is to be shown"
        return _complain(f"{place} cannot be used ({error.strerror}); check the path, its permissions and the room on its disk")
    except (click.Abort, KeyboardInterrupt):
        click.echo(err=True)
        return 130


CLICKS_WORDS = (
    (r"is not a valid integer( range)?$", "is no whole number"),
    (r"is not a valid float( range)?$", "is no number"),
    (r"is not in the range x>=(\S+)$", r"is too small; pass \1 or more"),
    (r"is not in the range (\S+)<=x<=(\S+)$", r"is out of range; pass a number from \1 to \2"),
)


def in_plain_words(message: str) -> str:
    """click's message with its words for kinds of numbers replaced by ours."""
    for theirs, ours in CLICKS_WORDS:
        message = re.sub(theirs, ours, message)
    return message


def _complain(message: str) -> int:
    click.echo(f"townhall: {message}", err=True)
    return 2
