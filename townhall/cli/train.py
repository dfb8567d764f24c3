"""`townhall train`: an adapter out of conversations."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from townhall.adapter_spec import AdapterSpec
from townhall.cli import terminal

if TYPE_CHECKING:
    from app.models.llama.training.trainer import Trainer

EPILOG = """\b
Data are JSON lines, in the formats of OpenAI, mlx, alpaca, ShareGPT or trl (townhall data makes, converts and checks them); only replies
are learnt. The base stays as it is packed, so a quantised model is trained over its quantised weights. docs/training.md says more.
\b
Examples:
  townhall train --data stacy.jsonl --personality stacy --out stacy-lora
  townhall train --model llama.gguf --data chats.jsonl --rank 16 --lr 1e-4 --out mine --resume
  townhall chat --lora stacy-lora
"""


@click.command(help="Train a LoRA adapter on conversations, here and without torch.", epilog=EPILOG)
@click.option("--model", type=click.Path(path_type=Path), metavar="PATH", help="the base  [default: as chat's]")
@click.option(
    "--data",
    "data",
    type=click.Path(path_type=Path),
    metavar="FILE",
    multiple=True,
    required=True,
    help="conversations to learn from; several flags, several files",
)
@click.option("--out", type=click.Path(path_type=Path), metavar="FOLDER", required=True, help="where the adapter goes, as peft has it")
@click.option("--personality", metavar="NAME", help="train in this persona's prompt  [default: none but what the data says]")
@click.option("--format", "prompt_format", default="auto", show_default=True, metavar="NAME", help="auto, chat_template or chat_log")
@click.option("--lora", metavar="PATH[:SCALE]", help="begin with this adapter's numbers; it must have the same rank and matrices")
@click.option("--rank", type=int, default=8, show_default=True, metavar="N", help="of the adapter")
@click.option("--alpha", type=float, default=16.0, show_default=True, metavar="X", help="its scale is alpha / rank")
@click.option("--targets", default="all", show_default=True, metavar="NAMES", help="attention, all, or q_proj,v_proj …")
@click.option("--lr", type=float, default=2e-4, show_default=True, metavar="X", help="learning rate at its peak")
@click.option("--schedule", default="cosine", show_default=True, metavar="NAME", help="cosine, linear or constant, after the warm-up")
@click.option("--warmup", type=int, default=10, show_default=True, metavar="STEPS", help="steps in which the rate rises")
@click.option("--steps", type=int, default=0, metavar="N", help="in all  [default: as --epochs says]")
@click.option("--epochs", type=float, default=3.0, show_default=True, metavar="X", help="how often the data are read")
@click.option("--batch", type=int, default=4, show_default=True, metavar="N", help="rows of a step")
@click.option("--accumulate", type=int, default=1, show_default=True, metavar="N", help="times as many rows, run one by one")
@click.option("--max-length", type=int, default=256, show_default=True, metavar="N", help="tokens of a row; no conversation may be longer")
@click.option("--skip-long", is_flag=True, help="leave longer conversations out")
@click.option("--packing/--no-packing", default=True, show_default=True, help="several short conversations in one row")
@click.option("--dropout", type=float, default=0.0, show_default=True, metavar="X", help="share of an adapter's input that is dropped")
@click.option("--weight-decay", type=float, default=0.0, show_default=True, metavar="X", help="of AdamW")
@click.option("--clip", type=float, default=1.0, show_default=True, metavar="X", help="greatest norm of a step's gradient; 0: any")
@click.option("--seed", type=int, default=0, show_default=True, metavar="S", help="the same seed gives the same adapter")
@click.option("--eval-data", type=click.Path(path_type=Path), metavar="FILE", help="conversations that are only looked at")
@click.option("--eval-every", type=click.IntRange(min=0), default=0, metavar="N", help="steps between looks at them  [default: at the end]")
@click.option("--save-every", type=click.IntRange(min=1), default=50, show_default=True, metavar="N", help="steps between checkpoints")
@click.option("--resume", is_flag=True, help="go on from the newest checkpoint in --out, where there is one")
@click.option("--qlora", is_flag=True, help="make the matrices of a float model 8-bit integers first; a quantised one stays what it is")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object per step")
def train(
    model: Path | None,
    lora: str | None,
    data: tuple[Path, ...],
    out: Path,
    personality: str | None,
    prompt_format: str,
    skip_long: bool,
    eval_data: Path | None,
    eval_every: int,
    save_every: int,
    resume: bool,
    qlora: bool,
    as_json: bool,
    **settings: Any,
) -> int:
    from app.models.llama.training import training_state
    from app.models.llama.training.errors import TrainingError
    from app.models.llama.training.trainer import TrainingSettings
    from townhall.cli.training_report import TrainingReport

    chosen = TrainingSettings(**settings)
    chosen.check()
    state = training_state.newest(out) if resume else None
    if not resume and (out / training_state.FOLDER).is_dir() and any((out / training_state.FOLDER).iterdir()):
        raise TrainingError(f"{out} holds checkpoints of an earlier training: pass --resume to go on with it, or another --out")
    trainer = open_trainer(
        model, data, personality, prompt_format, chosen, skip_long, eval_data, qlora, AdapterSpec.parse(lora) if lora else None
    )
    if state is not None:
        trainer.resume(state)
        terminal.note(f"going on after step {trainer.step} of {trainer.steps}")
    report = TrainingReport(trainer, as_json)
    with terminal.ctrl_c_stops() as interrupt:
        every = eval_every or (trainer.steps if eval_data else 0)
        for step in trainer.run(every, stop=lambda: bool(interrupt)):
            if step.step % save_every == 0:
                trainer.save(out)  # before it is reported: what was seen is kept
            report.step(step)
        trainer.save(out)
        write_adapter(trainer, out)
        report.plot(out)
        if trainer.step < trainer.steps:
            terminal.note(f"stopped after step {trainer.step} of {trainer.steps}; {out} holds the adapter so far, --resume goes on")
            interrupt.leave()
            return 130
    report.end(out)
    return 0


def open_trainer(
    model: Path | None,
    data: tuple[Path, ...],
    personality: str | None,
    prompt_format: str,
    settings: Any,
    skip_long: bool,
    eval_data: Path | None,
    qlora: bool,
    first: AdapterSpec | None = None,
) -> "Trainer":
    """Data first, then the model: a mistake in a file is found before anything is loaded."""
    from townhall.cli.chat_options import ChatOptions
    from townhall.data.training_chats import read_chats
    from townhall.persona import load_persona

    persona = load_persona(personality) if personality else None
    chats = [chat for path in data for chat in read_chats(path)]
    held_out = read_chats(eval_data) if eval_data else []
    path = ChatOptions(model=model).model_path()
    from ext.tinygrad.toolchain import prepare_environment

    prepare_environment()  # before tinygrad is imported: it reads the environment then
    from tinygrad import Device

    from app.models.llama.checkpoint import open_checkpoint
    from app.models.llama.llama import Llama
    from app.models.llama.training.errors import TrainingError
    from app.models.llama.training.samples import Sample
    from app.models.llama.training.trainer import Trainer
    from ext.tinygrad.kernels import kernels_for
    from ext.tinygrad.kernels.reference import ReferenceKernels
    from townhall.cli.model_loading import show_compiling
    from townhall.data.training_samples import SampleMaker

    if settings.max_length > (trained := open_checkpoint(path).config.context_length):
        raise TrainingError(
            f"--max-length {settings.max_length} exceeds the {trained} tokens that {path.name} was trained for; pass that or less"
        )
    device = Device.canonicalize(None)
    kernels = kernels_for(device) if device == "CPU" else ReferenceKernels()  # a GPU's fused kernels have no gradients
    llama = Llama.load(path, settings.max_length, device=device, kernels=kernels, quantize=qlora)
    show_compiling()
    maker = SampleMaker(llama.tokenizer, persona, prompt_format)

    def fitting(samples: list[Sample]) -> list[Sample]:
        kept = [sample for sample in samples if len(sample.ids) <= settings.max_length or not skip_long]
        if len(kept) < len(samples):
            left = len(samples) - len(kept)
            terminal.note(f"{left} of {len(samples)} conversations are longer than {settings.max_length} tokens and left out")
        return kept

    where = ", ".join(map(str, data))
    trainer = Trainer(llama, fitting(maker.samples(chats)), settings, fitting(maker.samples(held_out)), where)
    if first is not None:
        trainer.begin_with(llama.adapter(first.path), first.scale)
    return trainer


def write_adapter(trainer: "Trainer", out: Path) -> None:
    """As peft has it."""
    from app.models.llama.lora.peft_folder import write_peft

    write_peft(trainer.adapter(), out, trainer.llama.config, trainer.settings.dropout)
