"""Adapters over the tiny models of families.py: their configuration as peft writes it, and tensors that follow from a name alone.

`python -m bench.adapters` has peft and transformers compute the logits of each, which tests/data/adapters.npz keeps: the suite needs
no torch.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.reference.families import FAMILIES, values

DATA = Path(__file__).resolve().parents[1] / "data"
POSITIONS = (0, 1, 17, 31, 47)  # whose logits are kept
LENGTH = 48
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
ALL = [*ATTENTION, "gate_proj", "up_proj", "down_proj"]
# name → the family of its base, and the arguments of peft's LoraConfig
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "attention": ("llama", {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]}),
    "all": ("llama", {"r": 8, "lora_alpha": 8, "target_modules": ALL}),
    "odd-rank": ("llama", {"r": 3, "lora_alpha": 5, "target_modules": ALL}),
    "pattern": ("llama", {"r": 4, "lora_alpha": 8, "target_modules": r".*\.layers\.1\.(self_attn\.(q|o)_proj|mlp\.down_proj)"}),
    "all-linear": ("llama", {"r": 4, "lora_alpha": 4, "target_modules": "all-linear", "exclude_modules": r".*layers\.0.*k_proj"}),
    "rslora": ("llama", {"r": 16, "lora_alpha": 8, "use_rslora": True, "target_modules": ATTENTION}),
    "patterns": (
        "llama",
        {
            "r": 4,
            "lora_alpha": 8,
            "target_modules": ALL,
            "rank_pattern": {"down_proj": 2, r"^model\.layers\.1\.self_attn\.[qk]_proj": 6},
            "alpha_pattern": {"layers.0.self_attn.q_proj": 20, "up_proj": 3},
        },
    ),
    "layers": (
        "llama",
        {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"], "layers_to_transform": [1], "fan_in_fan_out": True},
    ),
    "dora": ("llama", {"r": 4, "lora_alpha": 8, "use_dora": True, "target_modules": ALL}),
    "dora-embedding": ("llama", {"r": 4, "lora_alpha": 8, "use_dora": True, "target_modules": ["embed_tokens", "q_proj", "lm_head"]}),
    "head": ("llama", {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "lm_head"]}),
    "tied-embedding": ("qwen3", {"r": 4, "lora_alpha": 8, "target_modules": ["embed_tokens", "v_proj"]}),
    "tied-head": ("qwen3", {"r": 4, "lora_alpha": 8, "target_modules": ["lm_head", "k_proj"]}),
    "saved": (
        "llama",
        {
            "r": 4,
            "lora_alpha": 8,
            "target_modules": ["v_proj"],
            "modules_to_save": ["embed_tokens", "lm_head", "input_layernorm", "up_proj"],
        },
    ),
    "tied-saved": ("qwen3", {"r": 4, "lora_alpha": 8, "target_modules": ["v_proj"], "modules_to_save": ["embed_tokens"]}),
    "biases": ("llama-biased", {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "o_proj", "down_proj"], "bias": "all"}),
    "biases-dora": (
        "llama-biased",
        {"r": 4, "lora_alpha": 8, "target_modules": ["k_proj", "up_proj"], "bias": "lora_only", "use_dora": True},
    ),
    "window": ("qwen2-window", {"r": 8, "lora_alpha": 16, "target_modules": ALL}),
    "fused": ("phi3", {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"}),
    "fused-dora": ("phi3", {"r": 4, "lora_alpha": 8, "use_dora": True, "target_modules": ["qkv_proj", "gate_up_proj"]}),
    "gemma": (
        "gemma2-square",
        {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"], "modules_to_save": ["post_feedforward_layernorm"]},
    ),
    "cohere": ("cohere", {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "k_proj"]}),
}


def adapter_values(key: str, shape: tuple[int, ...], family: str) -> np.ndarray:
    """float32: changes that are felt, magnitudes and norms around one."""
    if key.endswith(".base_layer.weight"):  # frozen, as the base has it
        tied = FAMILIES[family].get("tie_word_embeddings")
        return values("model.embed_tokens.weight" if tied else key.removeprefix("base_model.model.").replace(".base_layer.", "."), shape)
    noise = values(key, shape)
    if "lora_magnitude_vector" in key:
        return np.abs(noise) + np.float32(0.5)
    return noise if len(shape) == 1 else noise * np.float32(0.5)


def stored_cases() -> dict[str, dict[str, Any]]:
    """Of each case its adapter_config.json and the shapes of its tensors, as peft wrote them."""
    found: dict[str, dict[str, Any]] = json.loads((DATA / "adapters.json").read_text())
    return found


def write_adapter(case: Mapping[str, Any], folder: Path, torch: bool = False) -> Path:
    """A folder as peft's save_pretrained leaves it."""
    from safetensors.numpy import save_file

    from tests.reference.torch_writer import write_torch

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(case["config"], indent=2))
    tensors = {key: adapter_values(key, tuple(shape), case["config"]["base_model_name_or_path"]) for key, shape in case["tensors"].items()}
    if torch:
        write_torch(folder / "adapter_model.bin", tensors)
    else:
        save_file(tensors, folder / "adapter_model.safetensors")
    return folder
