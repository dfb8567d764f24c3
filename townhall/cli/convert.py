"""`townhall convert`: any checkpoint to one GGUF file."""

from pathlib import Path

import click

KINDS = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q4_k")
EXAMPLE = "Example: townhall convert 7B/ llama-7b.gguf --type q8_0"


@click.command(help="Turn any checkpoint into one GGUF file, quantised or not.", epilog=EXAMPLE)
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT.gguf", type=click.Path(path_type=Path))
@click.option(
    "--type", "kind", type=click.Choice(KINDS), default="q8_0", show_default=True, help="of matrices; 4 bits leave the head at q8_0"
)
def convert(source: Path, target: Path, kind: str) -> None:
    from tqdm import tqdm

    from app.models.llama.checkpoint import open_checkpoint
    from app.models.llama.checkpoint.conversion import convert as run
    from app.models.llama.checkpoint.conversion import unsaid
    from ext.tinygrad.toolchain import prepare_environment

    prepare_environment()  # quantising is faster where a C compiler is found
    checkpoint = open_checkpoint(source)
    with tqdm(desc=target.name, total=checkpoint.nbytes, unit="B", unit_scale=True, unit_divisor=1024, leave=False, disable=None) as bar:
        written = run(checkpoint, target, kind, bar.update)
    click.echo(written)
    if rules := unsaid(checkpoint):
        click.echo(
            f"{target} is tokenised otherwise by llama.cpp, for GGUF has no keys for a tokenizer that {' and '.join(rules)}; "
            "Townhall reads them from keys of its own",
            err=True,
        )
