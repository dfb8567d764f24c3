"""docs/cli.md, made from the commands' own help: python -m townhall.cli.manual > docs/cli.md"""

from collections.abc import Iterator

import click

from townhall.cli import commands, flags
from townhall.cli.chat import chat
from townhall.cli.main import cli

WIDTH = 100
PREFACE = """# The command line

Made from `--help` by `python -m townhall.cli.manual > docs/cli.md`; a test keeps the two equal.
"""
SAMPLERS = """#### More samplers

`--help-samplers`; of every command that draws, by the same names. [samplers.md](samplers.md) says what they do.
"""
SESSION = """#### In a session

Lines that begin with one of these words; in a pipe as well, where any other line is said, whatever it begins with.
"""


def manual() -> str:
    """All help texts as one page."""
    parts = [PREFACE]
    for names, text in pages(click.Context(cli, info_name="townhall", terminal_width=WIDTH, **cli.context_settings)):
        parts.append(f"{'#' * min(len(names) + 1, 4)} {' '.join(names)}\n\n```text\n{text.rstrip()}\n```\n")
        if names == ["townhall", "chat"]:
            parts.append(f"{SAMPLERS}\n```text\n{flags.samplers_help(chat_context())}\n```\n")
            parts.append(f"{SESSION}\n```text\n{commands.manual()}\n```\n")
    return "\n".join(parts)


def chat_context() -> click.Context:
    """Of `townhall chat`, as wide as the page."""
    return click.Context(chat, info_name="chat", terminal_width=WIDTH, **cli.context_settings)


def pages(ctx: click.Context) -> Iterator[tuple[list[str], str]]:
    """(command line, its help) of a command and of all below it."""
    yield ctx.command_path.split(), ctx.get_help()
    if isinstance(ctx.command, click.Group):
        for name in ctx.command.list_commands(ctx):
            command = ctx.command.get_command(ctx, name)
            assert command is not None
            yield from pages(click.Context(command, info_name=name, parent=ctx, **command.context_settings))


if __name__ == "__main__":
    click.echo(manual(), nl=False)
