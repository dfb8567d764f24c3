"""`townhall warm`: what the first chat would wait for, done now."""

import time
from pathlib import Path

import click

from townhall.adapter_spec import parse_all, scaled
from townhall.cli import terminal
from townhall.cli.chat_options import ChatOptions
from townhall.cli.flags import some_flags


@click.command(
    help="Compile the kernels and lay out the weights now, so that the first chat starts as fast as every other.",
    epilog="Example: townhall warm --max-context 4096",
)
@click.option("--model", type=click.Path(path_type=Path), help="model file  [default: the one that pull_llama.sh fetches]")
@some_flags("max_context", "kv", "lora")
def warm(model: Path | None, max_context: int | None, kv: str, lora: tuple[str, ...]) -> int:
    path, adapters = ChatOptions(model=model).model_path(), scaled(parse_all(lora))
    started = time.perf_counter()
    from ext.tinygrad.toolchain import prepare_environment

    prepare_environment()
    from townhall.cli.model_loading import show_compiling
    from townhall.warmup import warm as fill

    show_compiling()

    def progress(done: int, total: int) -> None:
        terminal.progress(f"{path.name}: {done / total:.0%}")

    device = fill(path, max_context, kv, adapters, progress, terminal.note)
    terminal.note(f"{path.name} is warm on {device} ({time.perf_counter() - started:.1f} s)")
    return 0
