"""Reference logits of tiny models of every family, by transformers: writes tests/data/families.npz and families.json.

python -m bench.families [--only qwen3,gemma2] (needs torch and transformers; the models are those of tests/reference/families.py)
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from tests.reference.families import FAMILIES, POSITIONS, config_of, ids_of, write

DATA = Path(__file__).resolve().parents[1] / "tests" / "data"
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


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the reference logits of tiny models of every family.")
    parser.add_argument("--only", help="families, with commas between")
    options = parser.parse_args()
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
