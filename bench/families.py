"""Tiny models of every family (tests/reference/families.py) beside transformers and llama.cpp.

python -m bench.families [--only qwen3,gemma2]: transformers' logits to tests/data/families.npz and families.json; needs torch
python -m bench.families --table: docs/models.md, from Townhall, from what is stored, and from llama.cpp where it is installed
"""

import argparse
import ctypes
import dataclasses
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from tests.reference.families import CONTEXT, FAMILIES, POSITIONS, VOCAB, config_of, ids_of, write, write_family

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "tests" / "data"
BEGIN, END = "<!-- begin: python -m bench.families --table -->", "<!-- end -->"
HEAD = ["| tiny model | model type | traits beside LLaMA's | from transformers | from llama.cpp |", "|---|---|---|---|---|"]
Shapes = dict[str, tuple[int, ...]]


def published_shapes(name: str, folder: Path) -> Shapes:
    """The tensors that such a model is published with."""
    from safetensors import safe_open
    from transformers import AutoConfig, AutoModelForCausalLM

    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config_of(name)))
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).save_pretrained(folder)
    with safe_open(folder / "model.safetensors", "np") as file:
        return {tensor: tuple(file.get_slice(tensor).get_shape()) for tensor in file.keys()}


def reference_logits(folder: Path, ids: list[int]) -> np.ndarray:
    """float32 (len(ids), V), with plain attention."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        logits: np.ndarray = model(torch.tensor([ids])).logits[0].numpy()
    return logits


def llama_cpp_logits(path: Path, ids: list[int], adapter: Path | None = None) -> np.ndarray | None:
    """float32 (len(ids), V) of one batch, with a float32 cache; None where llama.cpp does not load the file, or the adapter."""
    import llama_cpp

    model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
    if not model:
        return None
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = CONTEXT
    parameters.type_k = parameters.type_v = 0
    context = llama_cpp.llama_init_from_model(model, parameters)
    if adapter is not None:
        loaded = llama_cpp.llama_adapter_lora_init(model, str(adapter).encode())
        if not loaded or llama_cpp.llama_set_adapters_lora(context, (type(loaded) * 1)(loaded), 1, (ctypes.c_float * 1)(1.0)):
            return None
    batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
    batch.n_tokens = len(ids)
    for i, token in enumerate(ids):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = token, i, 1, 0, 1
    if llama_cpp.llama_decode(context, batch):
        return None
    rows = [np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, i), (VOCAB,)).copy() for i in range(len(ids))]
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return np.stack(rows)


def traits_in_words(name: str, traits: object) -> str:
    """What differs from LLaMA."""
    from app.models.llama.traits import LLAMA

    words = []
    for field in dataclasses.fields(LLAMA):
        value = getattr(traits, field.name)
        if value == getattr(LLAMA, field.name):
            continue
        if field.name == "windows":
            every = "all" if all(value) else f"{sum(map(bool, value))} of {len(value)}"
            words.append(f"windows ({every} layers)")
        elif field.name == "unrotated":
            words.append("layers without RoPE")
        elif field.name == "experts":
            words.append(f"{value.count} experts, {value.used} used")
        elif isinstance(value, str):
            words.append(f"{field.name.replace('_', ' ')}: {value}")
        else:
            words.append(field.name.replace("_", " "))
    return ", ".join(words) or "none"


def table() -> int:
    """docs/models.md: each family's largest difference from the references, as a share of its largest logit."""
    from app.models.llama import Llama
    from app.models.llama.checkpoint import CheckpointError, open_checkpoint
    from app.models.llama.checkpoint.conversion import convert

    stored = np.load(DATA / "families.npz")
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for index, name in enumerate(FAMILIES):
            # llama.cpp treats files of some names by rules of their own
            folder = write_family(name, Path(temporary) / f"m{index}")
            checkpoint, expected = open_checkpoint(folder), stored[name]
            largest = np.abs(expected).max()
            ours = Llama.load(folder, CONTEXT, device="CPU").logits(ids_of())[list(POSITIONS)]
            beside = "not installed"
            try:
                path = convert(checkpoint, Path(temporary) / f"m{index}.gguf", "f32")
                found = llama_cpp_logits(path, ids_of())
                within = [
                    i
                    for i, p in enumerate(POSITIONS)
                    if not checkpoint.config.traits.windows or p < min(filter(None, checkpoint.config.traits.windows))
                ]
                beside = "does not load it" if found is None else f"{np.abs(found[list(POSITIONS)] - expected).max() / largest:.0e}"
                if found is not None and len(within) < len(POSITIONS):
                    beside += f" ({np.abs(found[list(POSITIONS)] - expected)[within].max() / largest:.0e} within the window)"
            except CheckpointError as error:
                beside = f"no GGUF: {str(error).partition(',')[0]}"
            except ImportError:
                pass
            about = traits_in_words(name, checkpoint.config.traits)
            rows.append(
                f"| {name} | `{FAMILIES[name]['model_type']}` | {about} | {np.abs(ours - expected).max() / largest:.0e} | {beside} |"
            )
            print(rows[-1], flush=True)
    page = ROOT / "docs" / "models.md"
    text = page.read_text()
    begin, end = (text.index(mark) for mark in (BEGIN, END))
    page.write_text(text[:begin] + BEGIN + "\n" + "\n".join([*HEAD, *rows]) + "\n" + text[end:])
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Tiny models of every family beside transformers and llama.cpp.")
    parser.add_argument("--only", help="families, with commas between")
    parser.add_argument("--table", action="store_true", help="write the table of docs/models.md")
    options = parser.parse_args()
    if options.table:
        return table()
    names = options.only.split(",") if options.only else list(FAMILIES)
    target = DATA / "families.npz"
    logits = dict(np.load(target)) if options.only and target.exists() else {}
    shapes_file = DATA / "families.json"
    shapes: dict[str, Shapes] = json.loads(shapes_file.read_text()) if options.only and shapes_file.exists() else {}
    for name in names:
        with tempfile.TemporaryDirectory() as temporary:
            shapes[name] = published_shapes(name, Path(temporary) / "published")
            folder = write(name, shapes[name], Path(temporary) / "model", tokenizer=False)
            found = reference_logits(folder, ids_of())
        logits[name] = found[list(POSITIONS)]
        print(f"{name:<20}{len(shapes[name]):>4} tensors, largest logit {np.abs(found).max():.2f}", flush=True)
    np.savez_compressed(target, **{name: logits[name] for name in sorted(logits)})
    shapes_file.write_text(json.dumps(shapes, separators=(",", ":"), sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
