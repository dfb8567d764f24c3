"""`townhall chat`: flags in, one call; tinygrad is imported only once they have been read."""

from typing import Any

import click

from townhall.cli.flags import chat_flags, chat_options

EPILOG = """\b
Examples:
  townhall chat --personality gary
  townhall chat -c experiment --seed 7
  echo "How far is the moon?" | townhall chat --temperature 0
  townhall chat --prompt "Once upon a time" --count 60
"""


@click.command(help="Talk to a persona in the terminal; with piped input, answer each line.", epilog=EPILOG)
@chat_flags
@click.pass_context
def chat(ctx: click.Context, /, config: tuple[str, ...], **flags: Any) -> int:
    options = chat_options(ctx, config, flags)
    if options.prompt is not None:
        from townhall.cli.complete import run_completion

        return run_completion(options)
    from townhall.cli.session import run_session

    return run_session(options)
