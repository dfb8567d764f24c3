"""`townhall chat`: flags in, one call; tinygrad is imported only once they have been read."""

from typing import Any

import click
from click.core import ParameterSource

from townhall.cli.flags import chat_flags, chat_options, resolve_flags
from townhall.cli.log import complete_logs

EPILOG = """\b
Examples:
  townhall chat --personality gary
  townhall chat -c experiment --seed 7
  echo "How far is the moon?" | townhall chat --temperature 0
  townhall chat --prompt "Once upon a time" --count 60
  townhall chat --resume last
\b
In a session, /help lists what else there is: /edit, /retry, /undo, /persona, /model, /load, /branch …
"""


@click.command(help="Talk to a persona in the terminal; with piped input, answer each line.", epilog=EPILOG)
@chat_flags
@click.option(
    "--resume",
    metavar="LOG",
    shell_complete=complete_logs,
    help="go on with a kept conversation, as it was held: its id or the beginning of that, a path, or the word last",
)
@click.pass_context
def chat(ctx: click.Context, /, config: tuple[str, ...], resume: str | None, **flags: Any) -> int:
    if resume is not None:
        return _resume(ctx, config, resume, flags)
    options = chat_options(ctx, config, flags)
    if options.prompt is not None:
        if unused := [
            name
            for name in ("greeting", "lorebook", "knowledge", "via", "compress", "enrich")
            if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
        ]:
            raise click.UsageError(f"--prompt carries on a text, here and without a persona to use --{unused[0]}; leave one of them out")
        from townhall.cli.complete_text import run_completion

        return run_completion(options)
    said = ctx.get_parameter_source("context") is ParameterSource.COMMANDLINE
    if options.compress is not None and said and options.context != options.strategy:
        raise click.UsageError(f"--compress keeps a memory, and --context {options.context} keeps none; leave one of them out")
    from townhall.cli.session import run_session

    return run_session(options)


def _resume(ctx: click.Context, config: tuple[str, ...], name: str, flags: dict[str, Any]) -> int:
    from townhall.cli.resume import find_log, resume_options
    from townhall.cli.session import run_session

    if flags["prompt"] is not None:
        raise click.UsageError("--resume goes on with a conversation and --prompt carries on a text: pass one of them")
    resolved = resolve_flags(ctx, config, flags)
    log = find_log(name, resolved["log_to"].value)
    return run_session(resume_options(log, resolved), log)
