"""Adapters of every form beside peft: the logits of tests/reference/adapters.py's cases to tests/data/adapters.npz and adapters.json.

python -m bench.adapters [--only dora,rslora]: needs torch, transformers and peft (0.21)
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tests.reference.adapters import CASES, DATA, LENGTH, POSITIONS, adapter_values, write_adapter
from tests.reference.families import ids_of, published_shapes, write


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


def main() -> int:
    parser = argparse.ArgumentParser(description="Adapters of every form beside peft.")
    parser.add_argument("--only", help="cases, with commas between")
    options = parser.parse_args()
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
