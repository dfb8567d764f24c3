"""`townhall watch`: flags in, one call; tinygrad is imported only once they have been read."""

from pathlib import Path
from typing import Any

import click

from townhall.cli.flags import SAMPLER_KEYS, given_flags, some_flags

EPILOG = """\b
A conversation's file is plain text: a line that begins with "User:" begins your turn,
one that begins with the persona's name begins an answer. Save it, and the answer is
written below. docs/watch.md tells the rest; contrib/vim/chat.vim is for vim.
\b
Examples:
  townhall watch talk.chat
  townhall watch ~/talks --personality gary
  townhall watch --once question.txt
  townhall watch --raw story.txt --count 60
"""

# what a conversation's flags and settings files say of the persona, the model, how it draws, and what it sees
SHARED = (
    *("config", "model", "personality", "count", *SAMPLER_KEYS),
    *("max_context", "kv", "context", "format", "timing", "size", "gen", "quantize", "lora", "eos", "device", "require", "cache", "json"),
)


@click.command(help="Answer in text files: watch FILE, or the *.chat and *.txt files in DIR, and reply when one is saved.", epilog=EPILOG)
@click.argument("target", metavar="FILE|DIR", type=click.Path(path_type=Path))
@click.option("--once", is_flag=True, help="answer what stands there now, and exit")
@click.option("--raw", is_flag=True, help="carry the text on as it is, without a persona, when a blank line at its end says so")
@click.option("--no-trim", is_flag=True, help="leave the raw continuation, in which the model may write your turn as well")
@click.option(
    "--delim",
    metavar="TEXT",
    help=r"what stands between turns, \n is a line's end  [default: a blank line]; with --raw, the last line that lets the model go on",
)
@click.option(
    "--slots", type=click.IntRange(min=1), default=8, show_default=True, help="conversations whose place in the model's memory is kept"
)
@some_flags(*SHARED)
@click.pass_context
def watch(
    ctx: click.Context,
    /,
    target: Path,
    once: bool,
    raw: bool,
    no_trim: bool,
    delim: str | None,
    slots: int,
    config: tuple[str, ...],
    **flags: Any,
) -> int:
    from townhall.cli.watch_runner import WatchOptions, run_watch

    options = WatchOptions(target, once, raw, not no_trim, delim, slots, config, given_flags(ctx, flags))
    return run_watch(options)
