"""`townhall delta`: weights published as a difference from others, applied, made, verified and fetched."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

PATH = click.Path(path_type=Path)


@click.group(
    help="Weights published as a difference from others (NAME.<sha256>.enc), such as point-alpaca's.",
    epilog="Example: townhall delta apply --base consolidated.00.pth --out result encrypted/*",
)
def delta() -> None:
    pass


@delta.command(help="Turn deltas into the files they stand for.", epilog="Example: townhall delta apply --base a.pth --out result *.enc")
@click.argument("deltas", nargs=-1, required=True, type=PATH)
@click.option("--base", required=True, type=PATH, help="the file that the deltas are differences from")
@click.option("--out", required=True, type=PATH, help="folder for the results")
def apply(deltas: tuple[Path, ...], base: Path, out: Path) -> None:
    from app.models.llama.deltas.delta_file import apply as run
    from app.models.llama.deltas.delta_file import total_bytes

    with _bar("applying", total_bytes(deltas)) as bar:
        written = run(base, deltas, out, bar.update)
    for path in written:
        click.echo(path)


@delta.command(help="Make deltas of files.", epilog="Example: townhall delta make --base a.pth --out encrypted result/*")
@click.argument("files", nargs=-1, required=True, type=PATH)
@click.option("--base", required=True, type=PATH, help="the file to take the difference from")
@click.option("--out", required=True, type=PATH, help="folder for the deltas")
def make(files: tuple[Path, ...], base: Path, out: Path) -> None:
    from app.models.llama.deltas.delta_file import make as run
    from app.models.llama.deltas.delta_file import total_bytes

    with _bar("making", total_bytes(files)) as bar:
        written = run(base, files, out, bar.update)
    for path in written:
        click.echo(path)


@delta.command(
    help="Hold files against a list of checksums: one of md5sum's or sha256sum's, or the published point-alpaca.",
    epilog="Example: townhall delta verify point-alpaca --only result/",
)
@click.argument("list_", metavar="LIST", type=PATH)
@click.option("--root", default=".", show_default=True, type=PATH, help="folder that the list's names begin in")
@click.option("--only", metavar="PREFIX", help="only names that begin so, such as encrypted/ or result/")
def verify(list_: Path, root: Path, only: str | None) -> int:
    from app.models.llama.deltas.checksums import ChecksumError, read_list
    from app.models.llama.deltas.checksums import verify as run
    from app.models.llama.deltas.delta_file import total_bytes

    entries = [entry for entry in read_list(list_) if entry.name.startswith(only or "")]
    if not entries:
        raise ChecksumError(f"{list_} lists nothing that begins with {only}; leave --only out")
    with _bar("verifying", total_bytes([root / entry.name for entry in entries])) as bar:
        results = run(entries, root, bar.update)
    for entry, result in results:
        click.echo(f"{entry.name}: {result}")
    wrong = [entry for entry, result in results if result != "OK"]
    if wrong:
        raise ChecksumError(f"{len(wrong)} of {len(results)} files are not as {list_} has them; fetch or make them again")
    return 0


@delta.command(
    help="Download the files of a list of addresses; what was begun is taken up.",
    epilog="Example: townhall delta fetch --list addresses.txt --out encrypted",
)
@click.option("--list", "list_", required=True, type=PATH, help="one http address a line")
@click.option("--out", default=".", show_default=True, type=PATH, help="folder for the files")
def fetch(list_: Path, out: Path) -> None:
    from app.models.llama.deltas.delta_file import make_folder
    from app.models.llama.deltas.download import fetch as run
    from app.models.llama.deltas.download import read_urls

    addresses = read_urls(list_)
    make_folder(out)
    for url, name in addresses:
        with _bar(name, None) as bar:

            def move(n: int, total: int | None, bar: Any = bar) -> None:
                bar.total = total
                bar.update(n)

            click.echo(run(url, out / name, move))


@contextmanager
def _bar(text: str, total: int | None) -> Iterator[Any]:
    """Bytes, rate and time left on stderr; nothing where stderr is no terminal."""
    from tqdm import tqdm

    with tqdm(desc=text, total=total, unit="B", unit_scale=True, unit_divisor=1024, leave=False, disable=None) as bar:
        yield bar
