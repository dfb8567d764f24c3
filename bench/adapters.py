"""Adapters of every form beside peft: the logits of tests/reference/adapters.py's cases to tests/data/adapters.npz and adapters.json.

python -m bench.adapters [--only dora,rslora]: needs torch, transformers and peft (0.21)
python -m bench.adapters --llama-cpp: tiny models and GGUF adapters beside llama.cpp, where llama-cpp-python is installed
python -m bench.adapters --speed MODEL [--rank 8] [--turns 12]: an adapter on every matrix beside the model alone, on DEV
python -m bench.adapters --shared MODEL [--rank 8]: passes whose rows go through several adapters
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.reference.adapters import CASES, DATA, LENGTH, POSITIONS, adapter_values, write_adapter
from tests.reference.families import ids_of, published_shapes, write

if TYPE_CHECKING:
    from app.models.llama.config import LlamaConfig
    from app.models.llama.lora.adapter import Adapter


def reference(name: str, folder: Path) -> tuple[dict[str, Any], np.ndarray]:
    """What peft writes for a case, and its float32 logits (len(POSITIONS), V)."""
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM

    family, options = CASES[name]
    base = write(family, published_shapes()[family], folder / "base", tokenizer=False)

    def open_base() -> Any:
        return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager").eval()

    get_peft_model(open_base(), LoraConfig(task_type="CAUSAL_LM", **options)).save_pretrained(folder / "adapter")
    with safe_open(folder / "adapter" / "adapter_model.safetensors", "np") as file:
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text()) | {"base_model_name_or_path": family}
    for key in ("target_modules", "exclude_modules", "modules_to_save"):  # sets, in whatever order
        config[key] = sorted(value) if isinstance(value := config[key], list) else value
    # the frozen matrix beside an embedding's adapter is not a tensor of its own
    case = {"config": {key: value for key, value in config.items() if value is not None}, "tensors": shapes}
    written = write_adapter(case, folder / "filled")
    model = PeftModel.from_pretrained(open_base(), written).eval()
    state = model.state_dict()
    for key, shape in shapes.items():  # peft only warns of what it does not load
        if ".base_layer." in key:
            continue
        expected = adapter_values(key, shape, family)
        candidates = [
            value
            for own, value in state.items()
            if own.replace(".default", "").replace(".modules_to_save", "").removesuffix(".weight") == key.removesuffix(".weight")
        ]
        assert any(tuple(v.shape) == expected.shape and np.array_equal(v.numpy(), expected) for v in candidates), key
    with torch.no_grad():
        logits = model(torch.tensor([ids_of(LENGTH)])).logits[0].numpy()
    return case, logits[list(POSITIONS)]


def random_adapter(config: "LlamaConfig", rank: int, seed: int) -> "Adapter":
    """On every matrix of every block."""
    from app.models.llama.lora.adapter import Adapter, LowRank, adaptable_shapes

    random = np.random.default_rng(seed)

    def change(rows: int, cols: int) -> LowRank:
        a, b = random.standard_normal((rank, cols)), random.standard_normal((rows, rank))
        return LowRank((0.02 * a).astype(np.float32), (0.002 * b).astype(np.float32), 2.0)

    shapes = {name: shape for name, shape in adaptable_shapes(config).items() if name.startswith("layers.")}
    return Adapter({name: change(*shape) for name, shape in shapes.items()})


def shared(path: Path, rank: int, conversations: int = 4) -> int:
    """Processor time of a round of next tokens: of the base and three adapters in one pass, in a pass each, and of the base alone."""
    import time

    from app.models.llama import Llama
    from app.models.llama.shared_passes import NextTokens

    llama = Llama.load(path, 512)
    llama.share_passes(2 * conversations, conversations)
    mixed = [llama, *(llama.adapted([(random_adapter(llama.config, rank, seed), 1.0)]) for seed in range(1, conversations))]
    ids, found = list(range(100, 130)), dict[str, list[float]]()
    for one in mixed:
        one.share_passes(2 * conversations, conversations)
    kinds = {"one pass, several adapters": mixed, "one pass, the base alone": [llama] * conversations, "a pass each": mixed}
    caches = {kind: [one.new_cache() for one in of] for kind, of in list(kinds.items())[:2]}
    caches["a pass each"] = caches["one pass, several adapters"]
    for turn in range(9):
        for kind, of in kinds.items():
            for one, cache in zip(of, caches[kind], strict=True):
                one.prefill(ids, cache)
                cache.truncate(len(ids))
            for token in ids:
                begun = time.process_time()
                if kind != "a pass each":
                    wanted = [NextTokens(cache, [token], cache.model or llama.model) for cache in caches[kind]]
                    llama.compute_ahead(wanted)
                for cache in caches[kind]:
                    llama.engine.step(token, cache)
                found.setdefault(kind, []).extend([time.process_time() - begun] * bool(turn))
    medians = {kind: float(np.median(times)) for kind, times in found.items()}
    for kind, seconds in medians.items():
        each = medians["a pass each"] / seconds
        print(f"{kind:<28}{seconds * 1000:8.2f} ms of processor time for {conversations} tokens, {each:.2f} times as fast as a pass each")
    return 0


def speed(path: Path, rank: int, turns: int, tokens: int) -> int:
    """Processor time of a token, in turns: other processes disturb it least. THREADS=1 tells it apart from waiting; on the device DEV."""
    import time

    from app.models.llama import Llama

    llama = Llama.load(path, 512)
    adapted = llama.adapted([(random_adapter(llama.config, rank, 0), 1.0)])
    print(f"on {llama.device}, kernel set {llama.model.kernels.name}")
    prompt = list(range(100, 100 + 2 * tokens))
    caches = {"alone": llama.new_cache(), f"rank {rank} on every matrix": adapted.new_cache()}
    read: dict[str, list[float]] = {name: [] for name in caches}
    written: dict[str, list[float]] = {name: [] for name in caches}
    for turn in range(turns + 1):
        for name, cache in caches.items():
            cache.truncate(0)
            times = [time.process_time()]
            llama.prefill(prompt, cache)
            times.append(time.process_time())
            for token in prompt[:tokens]:
                llama.engine.step(token, cache)
                times.append(time.process_time())
            if turn:  # kernels are compiled in the first
                read[name].append((times[1] - times[0]) / len(prompt))
                written[name] += np.diff(times[2:]).tolist()
    for kind, found in (("decode", written), ("prefill", read)):
        medians = {name: float(np.median(times)) for name, times in found.items()}
        for name, seconds in medians.items():
            share = medians["alone"] / seconds
            print(f"{kind:<8} {name:<28}{seconds * 1000:8.2f} ms of processor time a token, {share:.3f} of the model's speed")
    return 0


def beside_llama_cpp() -> int:
    """Merged models and GGUF adapters in llama.cpp, over tiny float32 models: the largest difference of logits."""
    from app.models.llama import Llama
    from app.models.llama.checkpoint import open_checkpoint
    from app.models.llama.checkpoint.conversion import convert
    from app.models.llama.lora.gguf_adapter import write_gguf_adapter
    from app.models.llama.lora.merged_checkpoint import MergedCheckpoint
    from app.models.llama.lora.peft_folder import read_peft
    from bench.families import llama_cpp_logits
    from tests.reference.adapters import stored_cases
    from tests.reference.families import write_family

    worst, ids = 0.0, ids_of(19)  # within the windows, which llama.cpp does not honour
    for name, (family, _) in CASES.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            base = open_checkpoint(write_family(family, folder / "base"))
            adapter = read_peft(write_adapter(stored_cases()[name], folder / "adapter"), base.config)
            llama, whole = Llama.load(folder / "base", 128), convert(base, folder / "base.gguf", "f32")
            plain_logits, ours = llama.logits(ids), llama.adapted([(adapter, 1.0)]).logits(ids)
            merged = convert(MergedCheckpoint(base, [(adapter, 1.0)]), folder / "merged.gguf", "f32")
            found = {"merged": llama_cpp_logits(merged, ids)}
            plain = not adapter.replaced and all(c.magnitude is None for c in adapter.matrices.values())
            if plain and not (base.config.tied and {"output.weight", "tok_embeddings.weight"} & adapter.matrices.keys()):
                found["adapter"] = llama_cpp_logits(whole, ids, write_gguf_adapter(adapter, folder / "a.gguf", base.config))
            shares = {kind: float(np.abs(theirs - ours).max() / np.abs(ours).max()) for kind, theirs in found.items() if theirs is not None}
            worst = max(worst, *shares.values(), 0.0)
            alone = llama_cpp_logits(whole, ids)
            own = 0.0 if alone is None else float(np.abs(alone - plain_logits).max() / np.abs(plain_logits).max())
            print(
                f"{name:<16}{family:<14}the base {own:.1e}, " + ", ".join(f"{kind} {share:.1e}" for kind, share in shares.items()),
                flush=True,
            )
    print(f"the largest difference is {worst:.1e} of the largest logit")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Adapters of every form beside peft.")
    parser.add_argument("--llama-cpp", action="store_true", help="beside llama.cpp instead")
    parser.add_argument("--speed", type=Path, metavar="MODEL", help="time decoding with an adapter instead")
    parser.add_argument("--shared", type=Path, metavar="MODEL", help="time passes of several adapters instead")
    parser.add_argument("--rank", type=int, default=8, help="of --speed's adapter")
    parser.add_argument("--turns", type=int, default=12, help="of --speed")
    parser.add_argument("--tokens", type=int, default=60, help="that --speed decodes in a turn, after a prompt of twice as many")
    parser.add_argument("--only", help="cases, with commas between")
    options = parser.parse_args()
    if options.shared:
        return shared(options.shared, options.rank)
    if options.speed or options.llama_cpp:
        return speed(options.speed, options.rank, options.turns, options.tokens) if options.speed else beside_llama_cpp()
    names = options.only.split(",") if options.only else list(CASES)
    logits_file, cases_file = DATA / "adapters.npz", DATA / "adapters.json"
    kept = bool(options.only) and cases_file.exists()
    logits = dict(np.load(logits_file)) if kept else {}
    cases: dict[str, Any] = json.loads(cases_file.read_text()) if kept else {}
    for name in names:
        with tempfile.TemporaryDirectory() as temporary:
            cases[name], logits[name] = reference(name, Path(temporary))
        print(f"{name:<16}{len(cases[name]['tensors']):>4} tensors, largest logit {np.abs(logits[name]).max():.2f}", flush=True)
    np.savez_compressed(logits_file, **{name: logits[name] for name in sorted(logits)})
    cases_file.write_text(json.dumps(cases, separators=(",", ":"), sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
