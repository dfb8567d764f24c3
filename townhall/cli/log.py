"""`townhall log`: what was said, found again."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from townhall.cli import terminal
from townhall.cli.reply_report import counted

if TYPE_CHECKING:
    from townhall.logbook.log_index import Index

LOG = "LOG is an id of `townhall log list` or its beginning, the path of a file, or the word last."


def open_index(folder: Path | None, anew: bool = False) -> "Index":
    """Of `folder`, or of the one that the settings name."""
    from townhall.cli.chat_options import ChatOptions
    from townhall.cli.settings_files import resolve
    from townhall.logbook.log_index import Index
    from townhall.logbook.logged_chat import default_folder

    if folder is None:
        named = resolve(ChatOptions.defaults())["log_to"].value
        folder = default_folder() if named is None else named.parent if named.suffix else named
    return Index(folder, anew)


def complete_logs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Ids that begin so, for a shell."""
    index = open_index(ctx.params.get("folder"))
    return [entry.id for entry in index.entries() if entry.id.startswith(incomplete)]


folder_option = click.option(
    "--log-to", "folder", type=click.Path(path_type=Path), metavar="FOLDER", help="where the logs are  [default: where the settings say]"
)
log_argument = click.argument("name", metavar="LOG", shell_complete=complete_logs)


@click.group(
    help="Find and read the conversations that were kept.",
    epilog="\b\nExamples:\n  townhall log list\n  townhall log search moon far\n  townhall log show last",
)
def log() -> None:
    pass


@log.command("list", help="Name the logs, the newest first.", epilog="Example: townhall log list --limit 5")
@folder_option
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="at most so many")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object per log")
def list_logs(folder: Path | None, limit: int | None, as_json: bool) -> None:
    from dataclasses import asdict

    from townhall.logbook.log_reader import printable

    index = open_index(folder)
    for entry in index.entries()[:limit]:
        if as_json:
            terminal.say(json.dumps(asdict(entry) | {"path": str(index.folder / entry.name)}, ensure_ascii=False) + "\n")
            continue
        first = " ".join(printable(entry.title or entry.first).split())
        remark = f"  ({entry.damages} damaged)" if entry.damages else ""
        what = entry.fault or f"{entry.persona or '?':<10}  {entry.turns:>4} turn{'s' if entry.turns != 1 else ' '}  {first[:60]}{remark}"
        terminal.say(f"{entry.id}  {what}\n")
    if not index.entries():
        terminal.note(f"no logs in {index.folder}")


@log.command("show", help=f"Print a conversation. {LOG}", epilog="Example: townhall log show last")
@log_argument
@folder_option
@click.option("--damaged", is_flag=True, help="print what is damaged instead, as it stands in the file")
def show_log(name: str, folder: Path | None, damaged: bool) -> int:
    from townhall.logbook.log_reader import printable, read_log

    log = read_log(open_index(folder).find(name))
    if damaged:
        for damage in log.damages:
            terminal.say(f"line {damage.line}, {damage.reason}:\n{printable(damage.raw.decode(errors='replace'))}\n")
        return 0
    for turn in log.turns:
        if turn.after_reset:
            terminal.note("(the talk began anew)")
        terminal.say(f"{terminal.styled(turn.name, sys.stdout, bold=True)}: {printable(turn.text)}\n")
        if turn.role == "assistant" and turn.facts is None:
            terminal.note("(this answer has no receipt: the program ended in it, or a person wrote it)")
        if rating := log.tree.nodes[turn.id].rating:
            terminal.note(f"(rated {rating})")
    if log.taken:
        terminal.note(f"(taken back: {counted(len(log.taken), 'turn')}; `townhall log export` prints all)")
    for damage in log.damages:
        terminal.note(f"line {damage.line}: {damage.reason}; `townhall log show --damaged` prints it")
    return 0


@log.command("search", help="Find turns that hold all the words, in any case.", epilog="Example: townhall log search moon far")
@click.argument("words", nargs=-1, required=True)
@folder_option
@click.option("--json", "as_json", is_flag=True, help="print one JSON object per turn")
def search_logs(words: tuple[str, ...], folder: Path | None, as_json: bool) -> None:
    from dataclasses import asdict

    from townhall.logbook.log_reader import printable

    found = open_index(folder).search(" ".join(words))
    for turn in found:
        text = " ".join(printable(turn.text).split())
        aside = "" if turn.standing else " (on another branch)"
        said = f"{turn.id}, line {turn.line}  {turn.speaker}{aside}: {excerpt(text, words[0])}"
        terminal.say((json.dumps(asdict(turn), ensure_ascii=False) if as_json else said) + "\n")
    if not found:
        terminal.note("no turn holds all of these words")


@log.command(
    "export", help=f"Print a conversation for other programs. {LOG}", epilog="Example: townhall log export last --markdown > talk.md"
)
@log_argument
@folder_option
@click.option("--json", "form", flag_value="json", default=True, help="everything, as one JSON object  [default]")
@click.option("--markdown", "form", flag_value="markdown", help="the talk alone")
def export_log(name: str, folder: Path | None, form: str) -> None:
    from townhall.logbook import log_reader
    from townhall.logbook.log_reader import read_log

    log = read_log(open_index(folder).find(name))
    terminal.say(
        log_reader.as_markdown(log)
        if form == "markdown"
        else json.dumps(log_reader.as_json(log), ensure_ascii=False, indent=2, default=str) + "\n"
    )


@log.command(
    "reindex",
    help="Make the index anew from the text, which is all there is.",
    epilog="Example: townhall log reindex",
)
@folder_option
def reindex_logs(folder: Path | None) -> None:
    index = open_index(folder, anew=True)
    entries = index.entries()
    damaged = sum(entry.damages for entry in entries)
    logs = counted(len(entries), "log")
    terminal.note(f"{logs} in {index.folder}" + (f", {counted(damaged, 'damaged place')}" if damaged else ""))


def excerpt(text: str, word: str, width: int = 90) -> str:
    """The part of `text` around the first `word`."""
    at = max(0, text.casefold().find(word.casefold()) - width // 3)
    return f"{'…' if at else ''}{text[at : at + width]}{'…' if len(text) > at + width else ''}"
