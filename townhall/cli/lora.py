"""`townhall lora`: adapters inspected, merged into their base, and taken out of the difference of two checkpoints."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from townhall.cli import terminal
from townhall.cli.convert import KINDS

if TYPE_CHECKING:
    import numpy as np

    from app.models.llama.checkpoint import Checkpoint

EPILOG = """\b
`--lora PATH[:SCALE]` lays an adapter over a model without merging it: townhall chat, serve, web, watch; docs/lora.md says more.
\b
Examples:
  townhall lora inspect stacy-lora
  townhall lora merge base.gguf stacy-lora merged.gguf --type q8_0
  townhall lora extract base.gguf tuned.gguf tuned-lora --rank 16
"""
SAMPLE = (
    "The harbour was quiet that morning. Two gulls sat on the sea wall, and a woman in a blue coat was counting crates: forty of apples, "
    "twelve of cheese, and one that nobody had labelled. She opened it. Inside lay a letter, a key, and a map of the old town as it had "
    "been before the flood of 1897. What would you do with a key that fits no door? She laughed, put it into her pocket, and went to ask "
    "the harbour master, who knew every lock between the lighthouse and the mill. He turned the key over twice and shook his head. "
    'def area(r):\n    return 3.14159 * r * r\n\n"It is older than the town," he said. "Try the church."'
)
DIM_CHANGES = ("q4_0", "q4_1", "q4_k")  # types whose steps are as large as most of what an adapter changes


@click.group(help="Inspect adapters, merge them into their base, or extract one from two checkpoints.", epilog=EPILOG)
def lora() -> None:
    pass


@lora.command(
    "inspect", help="Say what an adapter holds, and with --model whether it fits.", epilog="Example: townhall lora inspect stacy-lora"
)
@click.argument("path", metavar="ADAPTER", type=click.Path(path_type=Path))
@click.option("--model", type=click.Path(path_type=Path), help="the base that it is for: every tensor is checked against it")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object instead of lines")
def inspect_adapter(path: Path, model: Path | None, as_json: bool) -> None:
    from app.models.llama.lora.adapter import AdapterError
    from app.models.llama.lora.adapter_summary import summarise

    if not path.exists():
        raise AdapterError(f"{path} does not exist; pass the folder that peft or mlx-lm wrote, or a GGUF adapter")
    report = summarise(path)
    if model is not None:
        report |= _fit(path, model)
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return
    width = max(map(len, report))
    for name, value in report.items():
        click.echo(f"{name:<{width}}  {_spelled(value)}")


def _fit(path: Path, model: Path) -> dict[str, Any]:
    from app.models.llama.checkpoint import open_checkpoint
    from app.models.llama.lora.open_adapter import open_adapter

    adapter = open_adapter(path, open_checkpoint(model).config)
    silent = sum(not change.b.any() for change in adapter.matrices.values())
    return {"fits": str(model), "matrices": len(adapter.matrices), "zero": silent, "digest": adapter.digest}


def _spelled(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return (
        {None: "-", True: "yes", False: "no", "": "-"}.get(value, str(value))
        if not isinstance(value, int) or isinstance(value, bool)
        else f"{value:,}"
    )


@lora.command(
    "merge",
    help="Write BASE with adapters merged as one GGUF file, and say how far its answers are from those of the unmerged.",
    epilog="Example: townhall lora merge base.gguf stacy-lora:0.8 merged.gguf --type q8_0",
)
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("adapters", metavar="ADAPTER[:SCALE]...", nargs=-1, required=True)
@click.argument("target", metavar="OUT.gguf", type=click.Path(path_type=Path))
@click.option(
    "--type", "kind", type=click.Choice(KINDS), default="f16", show_default=True, help="of matrices; 4 bits leave the head at q8_0"
)
@click.option("--check/--no-check", default=True, show_default=True, help="measure the KL divergence to the unmerged model")
@click.option(
    "--text", type=click.Path(path_type=Path, dir_okay=False, exists=True), help="a text to measure on  [default: one that is built in]"
)
def merge_adapters(base: Path, adapters: tuple[str, ...], target: Path, kind: str, check: bool, text: Path | None) -> None:
    from tqdm import tqdm

    from app.models.llama.checkpoint import open_checkpoint
    from app.models.llama.checkpoint.conversion import convert
    from app.models.llama.lora.merged_checkpoint import MergedCheckpoint
    from app.models.llama.lora.open_adapter import open_adapter
    from ext.tinygrad.toolchain import prepare_environment
    from townhall.adapter_spec import parse_all, scaled

    prepare_environment()
    specs = scaled(parse_all(adapters, "adapter"))
    checkpoint = open_checkpoint(base)
    merged = MergedCheckpoint(checkpoint, [(open_adapter(path, checkpoint.config), scale) for path, scale in specs])
    with tqdm(desc=target.name, total=merged.nbytes, unit="B", unit_scale=True, unit_divisor=1024, leave=False, disable=None) as bar:
        written = convert(merged, target, kind, bar.update)
    click.echo(written)
    if check:
        said = text.read_text(errors="replace") if text else SAMPLE
        click.echo(_difference(checkpoint, base, specs, written, said))
        if kind in DIM_CHANGES:
            terminal.note(f"--type {kind} rounds in steps as large as what most adapters change; q8_0 and f16 keep it")


def _difference(checkpoint: "Checkpoint", base: Path, specs: list[tuple[Path, float]], merged: Path, text: str) -> str:
    """The merged model beside the unmerged one, over the tokens of a text."""
    from app.models.llama import Llama

    window = min(512, checkpoint.config.context_length)
    unmerged = Llama.load(base, window, adapters=specs)
    ids = unmerged.tokenizer.encode(text)[:window]
    before, after = unmerged.logits(ids), Llama.load(merged, window).logits(ids)
    divergence = kl(before, after)
    same = float((before.argmax(1) == after.argmax(1)).mean())
    return (
        f"KL to the unmerged model over {len(ids)} tokens: {divergence.mean():.2e} nats a token, at most {divergence.max():.2e}; "
        f"the likeliest token is the same at {same:.1%}"
    )


def kl(p: "np.ndarray", q: "np.ndarray") -> "np.ndarray":
    """Kullback-Leibler divergence of the distributions of logits (T, V), in nats: (T,)."""
    import numpy as np

    def log_softmax(x: np.ndarray) -> np.ndarray:
        x = x.astype(np.float64) - x.max(1, keepdims=True)
        result: np.ndarray = x - np.log(np.exp(x).sum(1, keepdims=True))
        return result

    log_p, log_q = log_softmax(p), log_softmax(q)
    result: np.ndarray = (np.exp(log_p) * (log_p - log_q)).sum(1)
    return result


@lora.command(
    "extract",
    help="Write what TUNED has beyond BASE as an adapter of low rank, with the error of each matrix.",
    epilog="Example: townhall lora extract base.gguf tuned.gguf tuned-lora --rank 16",
)
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("tuned", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--rank", type=click.IntRange(1, 4096), default=16, show_default=True, help="of every matrix's change")
@click.option("--half/--no-half", default=False, show_default=True, help="keep the adapter as float16")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object instead of lines")
def extract_adapter(base: Path, tuned: Path, target: Path, rank: int, half: bool, as_json: bool) -> None:
    from app.models.llama.checkpoint import open_checkpoint
    from app.models.llama.lora.extraction import extract
    from app.models.llama.lora.gguf_adapter import write_gguf_adapter
    from app.models.llama.lora.peft_folder import write_peft
    from townhall.errors import ModelError

    is_gguf = target.suffix == ".gguf"
    if target.exists() and (not target.is_dir() or is_gguf or any(target.iterdir())):
        raise ModelError(f"{target} is there already; pass the name of a new folder, or of a new .gguf file")
    before = open_checkpoint(base)
    found = extract(
        before, open_checkpoint(tuned), rank, lambda done, total: terminal.progress(f"{done} of {total} matrices" if done < total else "")
    )
    kind = "F16" if half else "F32"
    if is_gguf:
        write_gguf_adapter(found.adapter, target, before.config, kind)
    else:
        write_peft(found.adapter, target, before.config, kind=kind)
    if as_json:
        errors = [{"matrix": e.name, "size": e.size, "error": e.left_out} for e in found.errors]
        click.echo(json.dumps({"path": str(target), "rank": rank, "matrices": errors, "left_out": list(found.kept_out)}, indent=2))
        return
    click.echo(target)
    for error in found.errors:
        click.echo(f"{error.name:<40} differs by {error.size:8.3%} of its norm, of which the rank leaves out {error.left_out:7.2%}")
    if found.kept_out:
        terminal.note(
            f"{len(found.kept_out)} norms or biases differ as well, which an adapter cannot say: {', '.join(found.kept_out[:4])} …"
        )
