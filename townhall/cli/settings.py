"""`townhall settings`: what files and flags come to, and where each value was said."""

import json
from typing import Any

import click

from app.sampler_settings import DECLARED, flags_of
from townhall.cli.chat_options import in_one_line
from townhall.cli.flags import chat_flags, resolve_flags

EPILOG = """\b
Defaults, then settings.yaml in your own folder, then files given with -c, then flags: each wins over those before it.
\b
Examples:
  townhall settings
  townhall settings -c experiment --temperature 0.2
  townhall settings -c mine.yaml --json
"""


@click.command(help="Show the settings that townhall chat would use with these flags, and where each one comes from.", epilog=EPILOG)
@chat_flags
@click.pass_context
def settings(ctx: click.Context, /, config: tuple[str, ...], **flags: Any) -> None:
    from townhall.cli.settings_files import OWN, user_folder
    from townhall.cli.settings_schema import Settings, fault
    from townhall.errors import SettingsError

    resolved = {key: setting for key, setting in resolve_flags(ctx, config, flags).items() if key in Settings.model_fields}
    said = {key: _plain(key, s.value) for key, s in resolved.items() if s.source == "flag" and key != "eos"}
    if found := fault(said):
        flag = flags_of(found[0])[0] if found[0] in DECLARED else f"--{found[0].replace('_', '-')}"
        raise SettingsError(f"{flag}: {found[1]}")
    if flags["json"]:
        shown = {key: {"value": s.value, "source": s.source, "line": s.line} for key, s in resolved.items()}
        click.echo(json.dumps(shown, ensure_ascii=False, indent=2, default=str))
        return
    rows = [(key, _show(s.value), s.origin) for key, s in resolved.items()]
    widths = [max(len(row[n]) for row in rows) for n in (0, 1)]
    for key, value, origin in rows:
        click.echo(f"{key:<{widths[0]}}  {value:<{widths[1]}}  {origin}")
    own = user_folder() / OWN
    click.echo(f"your own settings: {own}" + ("" if own.is_file() else " (not there)"), err=True)


def _show(value: Any) -> str:
    if value is None or value == ():
        return "-"
    return str(value).lower() if isinstance(value, bool) else in_one_line(value) if isinstance(value, tuple) else str(value)


def _plain(key: str, value: Any) -> Any:
    return str(value) if key == "model" else list(value) if isinstance(value, tuple) else value
