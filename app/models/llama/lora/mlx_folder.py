"""Adapters as mlx-lm keeps them: adapters.safetensors with lora_a (in, r) and lora_b (r, out), and an adapter_config.json with the scale.

Format: https://github.com/ml-explore/mlx-lm, its package tuner.
"""

from pathlib import Path

import numpy as np

from app.models.llama.checkpoint.checkpoint import adjacent_entries
from app.models.llama.checkpoint.files import FLOATS, StoredTensor, read_json
from app.models.llama.checkpoint.safetensors import read_safetensors
from app.models.llama.config import LlamaConfig
from app.models.llama.lora.adapter import Adapter, AdapterError, LowRank, checked
from app.models.llama.lora.peft_config import CONFIG, MOST_NUMBER
from app.models.llama.lora.peft_folder import half_split, modules_of
from app.models.llama.sanitize import clipped, quoted

WEIGHTS = "adapters.safetensors"
DEFAULT_SCALE = 20.0
HALVES = {"lora_a": "a", "lora_b": "b", "m": "magnitude"}


def is_mlx(folder: Path) -> bool:
    """By what it holds."""
    settings = read_json(folder / CONFIG)
    return "peft_type" not in settings and ("fine_tune_type" in settings or "lora_parameters" in settings or (folder / WEIGHTS).exists())


def read_mlx(folder: Path, config: LlamaConfig) -> Adapter:
    """AdapterError or CheckpointError with one sentence about what is wrong."""
    settings, path = read_json(folder / CONFIG), folder / WEIGHTS

    def fail(fault: str, mend: str = "take the folder that mlx_lm.lora wrote for this base") -> AdapterError:
        return AdapterError(f"{path} {fault}; {mend}")

    kind = settings.get("fine_tune_type", "lora")
    if kind not in ("lora", "dora"):
        raise fail(f"is of the fine_tune_type {quoted(kind)}, where Townhall reads lora and dora", "train an adapter")
    parameters = settings.get("lora_parameters", {})
    scale = parameters.get("scale", DEFAULT_SCALE) if isinstance(parameters, dict) else None
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not abs(scale) < MOST_NUMBER:
        raise fail(f"belongs to an {CONFIG} with the scale {quoted(scale)}, which is no number")
    found: dict[str, dict[str, StoredTensor]] = {}
    for key, tensor in read_safetensors(path).items():
        module, _, half = key.rpartition(".")
        if half not in HALVES or module not in (names := modules_of(config)) or not names[module]:
            raise fail(f"has the tensor {clipped(key)}, which this model has no place for")
        if tensor.type not in FLOATS:
            raise fail(f"stores {key} as {tensor.type}, where Townhall reads {', '.join(FLOATS)}")
        found.setdefault(names[module], {})[HALVES[half]] = tensor
    matrices: dict[str, LowRank] = {}
    for name, parts in found.items():
        needed = {"a", "b"} | ({"magnitude"} if kind == "dora" else set())
        if parts.keys() != needed:
            lacks = "lora_a, lora_b" + (" and m" if kind == "dora" else "")
            raise fail(f"has {' and '.join(sorted(parts))} of {name}, where {kind} needs {lacks}")
        a, b = parts["a"].float32(), parts["b"].float32()
        if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
            raise fail(f"stores {name} as {a.shape} times {b.shape}, which do not go together")
        rows, lengths = np.ascontiguousarray(b.T), parts["magnitude"].float32().ravel() if "magnitude" in parts else None
        order = adjacent_entries(name, len(rows), config.head_dim, config.rope_dim) if half_split(config) else None
        if order is not None and len(rows) % config.head_dim == 0:
            rows, lengths = rows[order], lengths[order] if lengths is not None and len(lengths) == len(order) else lengths
        matrices[name] = LowRank(np.ascontiguousarray(a.T), rows, float(scale), lengths)
    if not matrices:
        raise fail("holds no tensors")
    base = settings.get("model")
    return checked(Adapter(matrices, base=base if isinstance(base, str) else "", path=str(folder)), config)
