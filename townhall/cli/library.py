"""`townhall library`: documents of one's own, added, listed, searched."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from townhall.cli import terminal

if TYPE_CHECKING:
    from townhall.library.indexer import UpdateReport
    from townhall.library.libraries import Library

SHOWN = 20  # documents without text that are named
EPILOG = """\b
Text, Markdown, HTML, PDF, DOCX, source code and chats are read; docs/library.md says how they are found again.
\b
Examples:
  townhall library add cooking ~/recipes bread.pdf
  townhall library search cooking how long does the dough rest
  townhall library add cooking
"""


def complete_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Libraries that begin so, for a shell."""
    from townhall.library.libraries import list_libraries

    return [name for name in list_libraries() if name.startswith(incomplete)]


name_argument = click.argument("name", shell_complete=complete_names)


@click.group(help="Keep documents in libraries, and search them.", epilog=EPILOG)
def library() -> None:
    pass


@library.command(
    "add",
    help="Read files and folders into library NAME; without any, what has changed of those that it has.",
    epilog="Example: townhall library add cooking ~/recipes bread.pdf",
)
@name_argument
@click.argument("paths", metavar="[PATH]...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--watch", "watching", is_flag=True, help="stay, and read what is saved, until Ctrl-C")
def add_documents(name: str, paths: tuple[Path, ...], watching: bool) -> None:
    from townhall.library.indexer import check_paths, update
    from townhall.library.libraries import Library

    check_paths(paths)
    with Library.open(name, create=bool(paths)) as opened:
        if opened.embedder is None:
            terminal.note(
                "wordllama is not installed, so only words are indexed, not what they mean; pip install 'townhall[library]' brings it"
            )
        try:
            report = update(opened, paths, show_progress)
        except KeyboardInterrupt:
            terminal.note("stopped; what was read so far is kept, and the same command reads the rest")
            raise
        tell(opened, report)
        if watching:
            keep_watching(opened)


@library.command("list", help="Name the libraries.", epilog="Example: townhall library list --json")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object per library")
def list_all(as_json: bool) -> None:
    from townhall.library.libraries import Library, default_folder, list_libraries

    names = list_libraries()
    for name in names:
        with Library.open(name) as opened:
            documents, passages, size, unreadable = opened.index.sizes()
            if as_json:
                info = {"name": name, "documents": documents, "passages": passages, "bytes": size, "unreadable": unreadable}
                roots = [str(root) for root in opened.index.roots()]
                terminal.say(json.dumps(info | {"roots": roots, "path": str(opened.index.path)}, ensure_ascii=False) + "\n")
                continue
        remark = f"  ({unreadable} without text)" if unreadable else ""
        terminal.say(f"{name:<20}  {counted(documents, 'document')}, {counted(passages, 'passage')}, {size / 1e6:.1f} MB{remark}\n")
    if not names:
        terminal.note(f"no libraries in {default_folder()}; `townhall library add NAME PATH` makes one")


@library.command("remove", help="Delete a library. Its documents stay where they are.", epilog="Example: townhall library remove cooking")
@name_argument
def remove(name: str) -> None:
    from townhall.library.libraries import remove_library

    remove_library(name)
    terminal.note(f"library {name} is removed")


@library.command(
    "search",
    help="Print the passages of a library that fit a question, best first; nothing where none fits.",
    epilog="Example: townhall library search cooking how long does the dough rest",
)
@name_argument
@click.argument("question", nargs=-1, required=True)
@click.option("--limit", type=click.IntRange(1, 50), default=5, show_default=True, metavar="N", help="at most so many")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object per passage")
def search(name: str, question: tuple[str, ...], limit: int, as_json: bool) -> None:
    from dataclasses import asdict

    from townhall.library.libraries import Library

    with Library.open(name) as opened:
        passages = opened.search(" ".join(question), limit)
    for number, passage in enumerate(passages, 1):
        if as_json:
            terminal.say(json.dumps({"library": name, "place": passage.place} | asdict(passage), ensure_ascii=False) + "\n")
            continue
        above = f"  [{passage.heading}]" if passage.heading else ""
        head = terminal.styled(f"{number}. {passage.place}{above}", sys.stdout, bold=True)
        body = "\n".join(f"   {line}".rstrip() for line in passage.text.split("\n"))
        terminal.say(terminal.harmless(f"{head}\n{body}\n\n", sys.stdout))
    if not passages:
        terminal.note(f"nothing in {name} fits the question")


def show_progress(done: int, total: int, path: Path) -> None:
    """A line that is overwritten; nothing in a pipe."""
    terminal.progress("" if done == total else f"{done} of {total}  {path}")


def tell(opened: "Library", report: "UpdateReport") -> None:
    """What an update did, in a few lines."""
    for path, fault in report.faults[:SHOWN]:
        terminal.note(f"{path}: {fault}")
    if (more := len(report.faults) - SHOWN) > 0:
        terminal.note(f"… and {counted(more, 'document')} more without text")
    done = [f"{counted(report.read, 'document')} read ({counted(report.passages, 'passage')})"]
    done += [f"{report.unchanged} unchanged"] if report.unchanged else []
    done += [f"{report.removed} gone"] if report.removed else []
    terminal.note(f"library {opened.name}: {', '.join(done)}")


def keep_watching(opened: "Library") -> None:
    """Until Ctrl-C."""
    from townhall.library.library_watch import watch

    terminal.note(f"library {opened.name} is watched; Ctrl-C ends that")
    with terminal.ctrl_c_stops() as interrupt:
        for report in watch(opened, show_progress, lambda: bool(interrupt)):
            tell(opened, report)
        interrupt.leave()


def counted(number: int, thing: str) -> str:
    """1 document, 2 documents."""
    return f"{number:,} {thing}{'s' if number != 1 else ''}"
