"""`townhall bench`: flags in, one run, a table out."""

import json
import os
from pathlib import Path
from typing import Any

import click

from townhall.adapter_spec import parse_all, scaled
from townhall.cli.chat_options import ChatOptions
from townhall.cli.flags import some_flags
from townhall.errors import ModelError

ROOT = Path(__file__).resolve().parents[1]
EPILOG = """\b
Examples:
  townhall bench
  townhall bench --quick --threads 2
  townhall bench --against llama.cpp --json > speed.json
"""


def _threads(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        numbers = (0,)
    if any(not 1 <= n <= 64 for n in numbers):
        raise click.BadParameter(f"{text} is no list of numbers of threads; write 1,2 for one")
    return tuple(sorted(set(numbers), reverse=True))


@click.command(help="Measure tokens per second, beside llama.cpp where llama-cpp-python is installed.", epilog=EPILOG)
@click.option("--model", type=click.Path(path_type=Path), help="model file  [default: the one that pull_llama.sh fetches]")
@some_flags("kv", "lora")
@click.option(
    "--against", type=click.Choice(["auto", "llama.cpp", "nobody"]), default="auto", show_default=True, help="who runs in turn with us"
)
@click.option("--threads", callback=_threads, metavar="N,N", help="numbers of threads  [default: 1 and all cores]")
@click.option("--alternations", type=click.IntRange(min=1), default=7, show_default=True, metavar="N", help="samples of each case")
@click.option("--quick", is_flag=True, help="fewer samples and cases, in two minutes at most; writes no files by itself")
@click.option("--device", metavar="NAME", help="CPU, CL, CL:1, CUDA, … or part of a name that townhall devices lists; wins over DEV")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="folder for the results  [default: bench/results of a checkout]"
)
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="PNG to draw  [default: docs/bench.png of a checkout]")
def bench(
    model: Path | None,
    kv: str,
    lora: tuple[str, ...],
    against: str,
    threads: tuple[int, ...],
    alternations: int,
    quick: bool,
    device: str | None,
    as_json: bool,
    out: Path | None,
    plot: Path | None,
) -> int:
    path, adapters = ChatOptions(model=model).model_path(), scaled(parse_all(lora))
    if adapters and against == "llama.cpp":
        raise ModelError("--lora: adapters are measured by themselves; leave out --against llama.cpp")
    from ext.tinygrad.device_selection import select
    from ext.tinygrad.toolchain import prepare_environment

    select(device)
    prepare_environment()
    from bench import peer, report
    from bench import plot as picture
    from bench.measure import BenchPlan, run

    _check_places(out, plot)  # before minutes are measured
    beside = peer.available() and not adapters if against == "auto" else against == "llama.cpp"
    plan = BenchPlan(path, beside, threads, alternations=alternations, adapters=tuple(adapters), kv=kv)
    results = run(plan.quick() if quick else plan, lambda text: click.echo(text, err=True))
    click.echo(json.dumps(results, ensure_ascii=False) if as_json else f"\n{report.table(results)}")
    if (
        not quick and model is None and not adapters and kv == "f16" and (ROOT / "bench" / "results").is_dir()
    ):  # a checkout's own record is of the default model
        out, plot = out or ROOT / "bench" / "results", plot or ROOT / "docs" / "bench.png"
    _keep(results, out, plot if picture.available() else None)
    return 0


def _check_places(out: Path | None, plot: Path | None) -> None:
    """ModelError or OSError where the files that were asked for cannot be written; makes the folder of the results."""
    from bench import plot as picture

    if plot is not None and not picture.available():
        raise ModelError("--plot needs matplotlib, which is not installed; install it with `pip install matplotlib` or leave out --plot")
    if plot is not None and not plot.parent.is_dir():
        raise ModelError(f"--plot {plot}: there is no folder {plot.parent}; make it or name another")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    for flag, folder in (("--out", out), ("--plot", plot and plot.parent)):
        if folder is not None and not os.access(folder, os.W_OK):
            raise ModelError(f"{flag}: {folder} is not to be written to; name another folder or change its permissions")


def _keep(results: dict[str, Any], out: Path | None, plot: Path | None) -> None:
    from bench import plot as picture
    from bench import report

    if out is not None:
        click.echo(f"written: {report.save(results, out)}", err=True)
    if plot is not None:
        picture.plot(results, plot)
        click.echo(f"drawn: {plot}", err=True)
