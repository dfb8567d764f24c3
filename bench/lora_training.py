"""LoRA training beside peft and torch: gradients, speed, and what is left after kill -9.

python -m bench.lora_training --oracle: gradients and losses of peft to tests/data/lora_training.npz; needs torch, transformers, peft
python -m bench.lora_training --speed --peft PYTHON [--model FILE]: tokens per second in alternating runs; PYTHON has torch and peft
python -m bench.lora_training --kills 50: a training that is killed at random moments and resumed
python -m bench.lora_training --writer-kills 50: only what writes its checkpoints
"""

import argparse
import json
import os
import random
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from app.models.llama.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "tests" / "data" / "lora_training.npz"
LENGTH, RANK, LEARNT = 256, 8, 128  # tokens of a row, and how many of them are learnt
VOCAB = 40_000  # ids are drawn below


def oracle() -> None:
    """peft's gradients of one step, and its losses over twenty steps of torch's AdamW."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.reference import lora_reference as ref

    config = LlamaConfig(
        vocab_size=ref.VOCAB,
        hidden_size=ref.DIM,
        intermediate_size=ref.HIDDEN,
        num_hidden_layers=ref.LAYERS,
        num_attention_heads=ref.HEADS,
        num_key_value_heads=ref.KV_HEADS,
        rms_norm_eps=ref.EPS,
        rope_parameters={"rope_type": "default", "rope_theta": ref.THETA},
        tie_word_embeddings=False,
        attn_implementation="eager",
    )
    model = LlamaForCausalLM(config)
    given = ref.weights()
    named = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}
    for n in range(ref.LAYERS):
        theirs = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
        theirs |= {
            "self_attn.q_proj": "attn_q",
            "self_attn.k_proj": "attn_k",
            "self_attn.v_proj": "attn_v",
            "self_attn.o_proj": "attn_output",
        }
        theirs |= {"mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
        named |= {f"model.layers.{n}.{hf}.weight": f"blk.{n}.{ours}.weight" for hf, ours in theirs.items()}
    turned = ("attn_q", "attn_k")
    state = {hf: torch.tensor(ref.half_split(given[ours]) if any(t in ours for t in turned) else given[ours]) for hf, ours in named.items()}
    model.load_state_dict(state)
    targets = [module.rpartition(".")[2] for module, _, _ in ref.MODULES.values()]
    tuned = get_peft_model(model, LoraConfig(r=ref.RANK, lora_alpha=ref.ALPHA, target_modules=targets, lora_dropout=0.0))
    parameters = dict(tuned.named_parameters())
    by_name = {}
    for name, (a, b) in ref.adapters().items():
        _, layer, module, *_ = [*name.split(".")[:2], ".".join(name.split(".")[2:4])]
        where = f"base_model.model.model.layers.{layer}.{ref.MODULES[module][0]}"
        by_name[name] = parameters[f"{where}.lora_A.default.weight"], parameters[f"{where}.lora_B.default.weight"]
        b = ref.half_split(b) if module in ("attention.wq", "attention.wk") else b
        by_name[name][0].data, by_name[name][1].data = torch.tensor(a), torch.tensor(b)

    def loss() -> "torch.Tensor":
        total, count = torch.zeros(()), 0
        for ids, learnt in ref.samples():
            logits = tuned(input_ids=torch.tensor(ids)[None]).logits[0, :-1]
            labels = torch.tensor(np.where(learnt, ids, -100)[1:])
            total = total + torch.nn.functional.cross_entropy(logits, labels, ignore_index=-100, reduction="sum")
            count += int((labels >= 0).sum())
        return total / count

    loss().backward()
    found: dict[str, np.ndarray] = {}
    for name, halves in by_name.items():
        a, b = (half.grad.numpy() for half in halves)
        if "wq" in name or "wk" in name:  # back to pairs side by side
            b = b.reshape(-1, 2, ref.HEAD_DIM // 2, ref.RANK).transpose(0, 2, 1, 3).reshape(b.shape)
        found |= {f"{name}.a": a, f"{name}.b": b}
    trained = [half for halves in by_name.values() for half in halves]
    tuned.zero_grad()
    optimizer = torch.optim.AdamW(trained, lr=ref.RATE, weight_decay=ref.DECAY)
    losses = []
    for step in range(ref.STEPS):
        now = loss()
        losses.append(now.item())
        now.backward()
        torch.nn.utils.clip_grad_norm_(trained, ref.CLIP)
        optimizer.param_groups[0]["lr"] = ref.RATE * (1 + np.cos(np.pi * step / ref.STEPS)) / 2
        optimizer.step()
        optimizer.zero_grad()
    np.savez_compressed(DATA, losses=np.array(losses), **found)  # type: ignore[arg-type]
    print(f"{DATA.relative_to(ROOT)}: {DATA.stat().st_size:,} bytes; loss {losses[0]:.4f} to {losses[-1]:.4f}")


def ours(model: Path, passes: int) -> dict[str, float]:
    """Tokens per second of rows of LENGTH tokens, AdamW included, and the peak of memory."""
    from ext.tinygrad.toolchain import prepare_environment

    prepare_environment()
    from app.models.llama import Llama
    from app.models.llama.training.samples import Sample
    from app.models.llama.training.trainer import Trainer, TrainingSettings

    llama, ids = Llama.load(model, LENGTH, device="CPU"), np.random.default_rng(0).integers(3, VOCAB, LENGTH).tolist()
    sample = Sample(tuple(ids), tuple(at >= LENGTH - LEARNT for at in range(LENGTH)))
    settings = TrainingSettings(rank=RANK, steps=passes + 1, batch=1, max_length=LENGTH, targets="all")
    seconds, computed, before = [], [], time.process_time()
    for step in Trainer(llama, [sample], settings).run():
        seconds.append(step.seconds)
        computed.append((now := time.process_time()) - before)
        before = now
    return figures(seconds[1:], computed[1:])  # the first step captures


def figures(seconds: list[float], computed: list[float]) -> dict[str, float]:
    """`computed` are seconds of processor time: what counts of a run that shares its cores with others, with one thread."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 10 if sys.platform != "darwin" else 1 << 20)
    return {"tokens_per_second": LENGTH / min(seconds), "tokens_per_cpu_second": LENGTH / min(computed), "peak_mb": peak}


def torchs(passes: int, threads: int) -> dict[str, float]:
    """The same of peft and torch, over random float32 weights of SmolLM2-135M's shape."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(threads)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
    )
    model = get_peft_model(LlamaForCausalLM(config), LoraConfig(r=RANK, lora_alpha=16, target_modules="all-linear")).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    ids = torch.randint(3, VOCAB, (1, LENGTH))
    labels = ids.clone()
    seconds, computed = [], []
    labels[:, : LENGTH - LEARNT] = -100
    for _ in range(passes + 1):
        started, before = time.perf_counter(), time.process_time()
        model(input_ids=ids, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - started)
        computed.append(time.process_time() - before)
    return figures(seconds[1:], computed[1:])


def speed(peft: str, model: Path, alternations: int, passes: int, threads: int) -> None:
    """Runs in turn; the best pass of each, the median over the runs, and their ratio."""
    kinds = {"townhall": [sys.executable, "--ours", "--model", str(model)], "torch + peft": [peft, "--torch"]}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in kinds}
    for _ in range(alternations):
        for name, (python, *arguments) in kinds.items():
            command = [python, "-m", "bench.lora_training", *arguments, "--passes", str(passes), "--threads", str(threads)]
            environment = os.environ | {"THREADS": str(threads), "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
            run = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment, check=True)
            found[name].append(json.loads(run.stdout.splitlines()[-1]))
            print(f"{name}: {found[name][-1]}", flush=True)
    for key in ("tokens_per_second", "tokens_per_cpu_second"):
        rates = [[run[key] for run in runs] for runs in found.values()]
        ratios = [a / b for a, b in zip(*rates, strict=True)]
        print(f"{key}: {', '.join(f'{name} {statistics.median(rate):.1f}' for name, rate in zip(found, rates, strict=True))}", end="; ")
        print(f"ratio of a pair: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}")
    peaks = {name: max(run["peak_mb"] for run in runs) for name, runs in found.items()}
    print(f"peak MB: {peaks}; {threads} threads, length {LENGTH}")


def kills(count: int, seed: int) -> None:
    """A training of a tiny model, killed `count` times and resumed; it must come to the adapter of one that nothing interrupted.

    Each process is forked off one that has loaded the model and captured its passes, so that a start costs milliseconds; that the command
    itself may be killed is tests/townhall/cli/test_train.py's."""
    from app.models.llama.training import training_state

    with tempfile.TemporaryDirectory() as name:
        folder, moments = Path(name), random.Random(seed)
        trainer = ready_trainer(folder, 1 << 20)
        killed, between, stopped = 0, 0, 0
        while killed < count:
            process = forked(trainer, folder / "killed", 1 << 20)
            time.sleep(moments.random() * 1.5)
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            killed += 1
            parts = list((folder / "killed").rglob("*.part"))
            between += bool(parts)
            state = training_state.newest(folder / "killed")  # raises where no checkpoint is whole
            assert (0 if state is None else state.step) >= stopped, "a checkpoint went back"
            stopped = 0 if state is None else state.step
            print(f"kill {killed}: resumable after step {stopped}{', in the middle of a write' if parts else ''}", flush=True)
        for out in ("killed", "whole"):
            _, status = os.waitpid(forked(trainer, folder / out, stopped + 10), 0)
            assert status == 0, f"the training ended with {status}"
        one, other = (training_state.newest(folder / out) for out in ("killed", "whole"))
        assert one is not None and other is not None and one.step == other.step == stopped + 10 and one.history == other.history
        assert all(np.array_equal(one.arrays[key], other.arrays[key]) for key in other.arrays), "the trainings differ"
        print(f"{killed} kills, {between} in the middle of a write: after {one.step} steps all is that of an uninterrupted training")


def ready_trainer(folder: Path, steps: int) -> "Trainer":
    """Over a tiny model, with everything captured and nothing trained; on one thread, which is all that a fork takes along."""
    os.environ["THREADS"] = "1"
    from ext.tinygrad.toolchain import prepare_environment

    prepare_environment()
    from app.models.llama.llama import Llama
    from app.models.llama.training.samples import Sample, row_of
    from app.models.llama.training.trainer import Trainer, TrainingSettings
    from tests.reference.tiny import make_tiny_gguf

    llama, draw = Llama.load(make_tiny_gguf(folder / "tiny.gguf", type="Q8_0"), 64, device="CPU"), np.random.default_rng(0)
    samples = [Sample(tuple(draw.integers(3, 200, n).tolist()), tuple(i >= n // 2 for i in range(n))) for n in draw.integers(8, 33, 20)]
    trainer = Trainer(llama, samples, TrainingSettings(rank=2, lr=0.01, steps=steps, batch=1, max_length=64, schedule="constant"))
    row = row_of(samples[:1])
    trainer._pass_for(row).gradients(row, 0.0)
    trainer.optimizer.step(0.0, 1, 1.0)
    return trainer


def forked(trainer: "Trainer", out: Path, steps: int) -> int:
    """The id of a process that goes on from the newest checkpoint in `out`, a checkpoint a step, until so many steps are done."""
    from app.models.llama.training import training_state

    if process := os.fork():
        return process
    code = 1
    try:
        if (state := training_state.newest(out)) is not None:
            trainer.resume(state)
        while trainer.step < steps:
            next(trainer.run())
            trainer.save(out)
        code = 0
    finally:
        os._exit(code)


WRITER = """
import sys
from pathlib import Path
import numpy as np
from app.models.llama.training import training_state
from app.models.llama.training.training_state import TrainingState
out, state = Path(sys.argv[1]), training_state.newest(Path(sys.argv[1]))
step, random = 0 if state is None else state.step, np.random.default_rng(0)
arrays = {name: random.standard_normal((30, 81_408), np.float32) for name in ("params", "means", "squares")}
while True:
    step += 1
    arrays["params"][0, 0] = step
    training_state.save(TrainingState(step, {}, [], arrays), out)
    print(step, flush=True)
"""


def writer_kills(count: int, seed: int) -> None:
    """What writes checkpoints, of the default model's size at rank 8, killed `count` times: what is left must be whole and the newest."""
    from app.models.llama.training import training_state

    with tempfile.TemporaryDirectory() as name:
        out, moments, between = Path(name), random.Random(seed), 0
        for kill in range(1, count + 1):
            process = subprocess.Popen([sys.executable, "-c", WRITER, name], stdout=subprocess.PIPE, cwd=ROOT)
            assert process.stdout is not None
            said = [process.stdout.readline()]
            time.sleep(moments.random() * 0.5)
            process.kill()
            said += process.stdout.readlines()
            process.wait()
            between += bool(list(out.rglob("*.part")))
            state = training_state.newest(out)
            reported = max(int(line) for line in said if line.endswith(b"\n"))
            assert state is not None and state.step >= reported and state.arrays["params"][0, 0] == state.step, f"kill {kill}: {state}"
        print(f"{count} kills, {between} of them in the middle of a write: the newest checkpoint was whole each time")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--oracle", action="store_true")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--kills", type=int, metavar="N")
    parser.add_argument("--writer-kills", type=int, metavar="N")
    parser.add_argument("--ours", action="store_true", help="one run of --speed")
    parser.add_argument("--torch", action="store_true", help="one run of --speed")
    parser.add_argument("--peft", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--model", type=Path, default=ROOT / "app" / "models" / "llama" / "weights" / "SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--alternations", type=int, default=3)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.oracle:
        oracle()
    if options.kills:
        kills(options.kills, options.seed)
    if options.writer_kills:
        writer_kills(options.writer_kills, options.seed)
    if options.ours:
        print(json.dumps(ours(options.model, options.passes)))
    if options.torch:
        print(json.dumps(torchs(options.passes, options.threads)))
    if options.speed:
        speed(options.peft, options.model, options.alternations, options.passes, options.threads)


if __name__ == "__main__":
    main()
