"""`townhall web`: a server and the page over it, until Ctrl-C."""

import sys
from typing import Any

import click

from townhall.cli.flags import some_flags
from townhall.cli.serve import run, served

EPILOG = """\b
Examples:
  townhall web
  townhall web --persona gary --open
  townhall web --host 0.0.0.0 --api-key-file key.txt
"""


@click.command(
    help="Talk to the personas on a page in the browser: `townhall serve` with a page at /, the API beside it under /v1.", epilog=EPILOG
)
@click.option(
    "--open/--no-open",
    "open_browser",
    default=None,
    help="open the page in your browser  [default: where a person started it in a terminal]",
)
@served(7860)
@some_flags("log_to")
@click.pass_context
def web(ctx: click.Context, /, open_browser: bool | None, config: tuple[str, ...], **flags: Any) -> int:
    if open_browser is None:
        open_browser = sys.stdin.isatty() and sys.stderr.isatty()
    return run(ctx, config, flags, chats=True, page=True, opened=click.launch if open_browser else None)
