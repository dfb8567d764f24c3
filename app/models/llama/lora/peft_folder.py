"""Adapters as peft keeps them: a folder with adapter_config.json and adapter_model.safetensors, or .bin; read within bounds, and written.

Unlike peft, which warns of a key that nothing reads and goes on, every fault is an error: an adapter of which a part is left out answers
otherwise than it was trained to.
"""

import json
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from app.models.llama.checkpoint.checkpoint import adjacent_entries, expected_shapes
from app.models.llama.checkpoint.files import FLOATS, StoredTensor
from app.models.llama.checkpoint.hf_checkpoint import fused_parts
from app.models.llama.checkpoint.names import canonical_from_hf, hf_from_canonical
from app.models.llama.checkpoint.safetensors import read_safetensors
from app.models.llama.checkpoint.torch_file import read_torch
from app.models.llama.config import LlamaConfig
from app.models.llama.lora.adapter import EMBEDDING, HEAD, Adapter, AdapterError, LowRank, adaptable_shapes, checked
from app.models.llama.lora.peft_config import CONFIG, PeftConfig, read_peft_config
from app.models.llama.sanitize import clipped

WEIGHTS: Mapping[str, Callable[[Path], dict[str, StoredTensor]]] = {
    "adapter_model.safetensors": read_safetensors,
    "adapter_model.bin": read_torch,
}
PREFIX = "base_model.model."
HALVES = {
    "lora_A.weight": "a",
    "lora_B.weight": "b",
    "lora_embedding_A": "a",
    "lora_embedding_B": "b",
    "lora_magnitude_vector": "magnitude",
    "lora_magnitude_vector.weight": "magnitude",
}
# modules of transformers' that hold several matrices
FUSED: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "phi3": {"self_attn.qkv_proj": ("wq", "wk", "wv"), "mlp.gate_up_proj": ("w1", "w3")},
    "internlm2": {"attention.wqkv": ("wq", "wk", "wv")},
}
NORM_OFFSET = 1.0  # by which Gemma's files have the weights of norms too small


def half_split(config: LlamaConfig) -> bool:
    """Does transformers pair entry i of a head with i + rope_dim / 2? Of its families only Cohere's has the pairs side by side."""
    return config.architecture not in ("cohere", "command-r")


def _order(name: str, config: LlamaConfig) -> np.ndarray | None:
    """Where each row of a matrix of queries or keys comes from in transformers' layout."""
    shape = expected_shapes(config).get(name)
    if shape is None or not half_split(config):
        return None
    return adjacent_entries(name, shape[0], config.head_dim, config.rope_dim)


def modules_of(config: LlamaConfig) -> dict[str, str]:
    """transformers' name of each module that can be adapted → our matrix; of one that holds several matrices, "": its rows are cut."""
    fused = FUSED.get(config.architecture, {})
    inside = {name for names in fused.values() for name in names}
    found: dict[str, str] = {}
    for name in adaptable_shapes(config):
        if not (name.startswith("layers.") and name.split(".")[3] in inside):
            found[hf_from_canonical(name, config.architecture).removesuffix(".weight")] = name
    return found | {f"model.layers.{n}.{module}": "" for n in range(config.n_layers) for module in fused}


@dataclass
class _Parts:
    """What the file has for one module."""

    tensors: dict[str, StoredTensor] = field(default_factory=dict)  # "a", "b", "magnitude"


def read_peft(folder: Path, config: LlamaConfig) -> Adapter:
    """AdapterError or CheckpointError with one sentence about what is wrong."""
    settings = read_peft_config(folder / CONFIG)
    path = next((folder / name for name in WEIGHTS if (folder / name).exists()), None)
    if path is None:
        raise AdapterError(f"{folder} has an {CONFIG} but no {' or '.join(WEIGHTS)}; download it again")
    return _PeftReader(settings, path, config).read(WEIGHTS[path.name](path), str(folder))


class _PeftReader:
    def __init__(self, settings: PeftConfig, path: Path, config: LlamaConfig):
        self.settings, self.path, self.config = settings, path, config
        self.modules = modules_of(config)

    def fail(self, fault: str, mend: str = "save the adapter again with peft's save_pretrained") -> AdapterError:
        return AdapterError(f"{self.path} {fault}; {mend}")

    def read(self, stored: Mapping[str, StoredTensor], folder: str) -> Adapter:
        if not stored:
            raise self.fail(
                "holds no tensors at all, which some versions of peft write after a training in shards or with a replaced state_dict"
            )
        parts: dict[str, _Parts] = {}
        whole: dict[str, StoredTensor] = {}
        for key, tensor in stored.items():
            if tensor.type not in FLOATS:
                raise self.fail(f"stores {key} as {tensor.type}, where Townhall reads {', '.join(FLOATS)}")
            module, half = self._split(key)
            if half:
                if half in (found := parts.setdefault(module, _Parts()).tensors):
                    raise self.fail(f"has {key} twice under different names")
                found[half] = tensor
            else:
                whole[module] = tensor
        wanted = self.settings.targeted(self.modules)
        for module in parts:
            if module not in self.modules:
                raise self.fail(
                    f"adapts {module}, which this model has not or Townhall cannot adapt", "use the base that it was trained on"
                )
            if module not in wanted:
                raise self.fail(
                    f"adapts {module}, which the target_modules of its {CONFIG} leave out: one of the two files is another adapter's"
                )
        if not wanted:
            raise self.fail(
                f"belongs to an {CONFIG} whose target_modules name no module of this model", "use the base that it was trained on"
            )
        matrices: dict[str, LowRank] = {}
        for module in wanted:
            matrices |= self._low_rank(module, parts.get(module, _Parts()).tensors)
        return checked(Adapter(matrices, self._replaced(whole, parts), self.settings.base, folder), self.config)

    def _split(self, key: str) -> tuple[str, str]:
        """(module, "a" | "b" | "magnitude") or (tensor, "") of a key; some programs leave out a `model.`, or leave in a name."""
        name = key.removeprefix("_orig_mod.").removeprefix(PREFIX).removeprefix("base_model.")
        module, dot, rest = name.partition(".lora_")
        if not dot:
            name = name.replace(".modules_to_save.default.", ".").replace(".base_layer.", ".")
            return (name if self._canonical(name) else f"model.{name}"), ""
        rest = f"lora_{rest}".replace(".default", "")
        if rest not in HALVES:
            raise self.fail(f"has the tensor {clipped(key)}, which Townhall has no use for", "train without what it belongs to")
        return (module if module in self.modules else f"model.{module}"), HALVES[rest]

    def _canonical(self, name: str) -> str | None:
        return canonical_from_hf(name, self.config.traits)

    def _low_rank(self, module: str, found: Mapping[str, StoredTensor]) -> dict[str, LowRank]:
        needed = ["a", "b"] + ["magnitude"] * self.settings.dora
        names = {"a": "lora_A", "b": "lora_B", "magnitude": "lora_magnitude_vector"}
        if missing := [names[half] for half in needed if half not in found]:
            raise self.fail(f"lacks {missing[0]} of {module}, which its {CONFIG} asks for")
        if surplus := [names[half] for half in found if half not in needed]:
            raise self.fail(f"has {surplus[0]} of {module}, but its {CONFIG} says use_dora false")
        rank = self.settings.rank_of(module)
        a, b = found["a"], found["b"]
        if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != rank or b.shape[1] != rank:
            raise self.fail(f"stores {module} as {b.shape} times {a.shape}, where its {CONFIG} gives the rank {rank}")
        scale, values = self.settings.scale_of(module), a.float32()
        magnitude = found["magnitude"].float32().ravel() if self.settings.dora else None
        if name := self.modules[module]:
            order = _order(name, self.config)
            rows, lengths = b.float32(), magnitude
            if order is not None and len(rows) == len(order):
                rows, lengths = rows[order], None if magnitude is None or len(magnitude) != len(order) else magnitude[order]
            return {name: LowRank(values, rows, scale, lengths if magnitude is not None and lengths is not None else magnitude)}
        return self._cut(module, values, b, scale, magnitude)

    def _cut(self, module: str, a: np.ndarray, b: StoredTensor, scale: float, magnitude: np.ndarray | None) -> dict[str, LowRank]:
        """Of a module that holds several matrices: they share A, and have their rows of B."""
        both = b.float32() if magnitude is None else np.concatenate([b.float32(), magnitude[: b.shape[0], None]], axis=1)
        stacked = StoredTensor("F32", both.shape, np.ascontiguousarray(both).view(np.uint8).reshape(-1))
        cut = fused_parts(f"{module}.weight", stacked, self.config)
        assert cut is not None, module
        found = {}
        for name, joined in cut.items():
            rows = joined.rows().view(np.float32)
            if (order := _order(name, self.config)) is not None:
                rows = rows[order]
            lengths = None if magnitude is None else np.ascontiguousarray(rows[:, -1])
            found[name] = LowRank(a, np.ascontiguousarray(rows[:, : b.shape[1]]), scale, lengths)
        return found

    def _replaced(self, whole: Mapping[str, StoredTensor], parts: Mapping[str, _Parts]) -> dict[str, np.ndarray]:
        """Tensors in place of the base's: modules_to_save, and biases that were trained along."""
        expected, found = expected_shapes(self.config), dict[str, np.ndarray]()
        for key, tensor in whole.items():
            module, _, kind = key.rpartition(".")
            name = self._canonical(key)
            if name in (EMBEDDING, HEAD) and module in parts:
                # peft writes the frozen matrix beside the adapter of an embedding; it is the base's unless the vocabulary was resized
                if tensor.shape == (self.config.vocab_size, self.config.dim):
                    continue
                raise self.fail(f"holds an embedding of {tensor.shape}: its vocabulary was resized", "use the base with as many tokens")
            known = name is not None and (name in expected or name == HEAD)
            asked = self.settings.is_saved_whole(module) or (kind == "bias" and self.settings.bias != "none")
            if name is None or not known or not asked:
                raise self.fail(f"has the tensor {clipped(key)}, which nothing reads", "use the base that it was trained on")
            values = tensor.float32()
            if self.config.architecture.startswith("gemma") and name.endswith("norm.weight"):
                values = values + np.float32(NORM_OFFSET)
            order = _order(name, self.config)
            found[name] = values[order] if order is not None and len(values) == len(order) else values
        return found


def write_peft(adapter: Adapter, folder: Path, config: LlamaConfig, dropout: float = 0.0, kind: str = "F32") -> Path:
    """A folder that peft's PeftModel.from_pretrained loads; both files appear whole or not at all. `kind` is F32 or F16.

    Ranks and scales that differ between matrices become rank_pattern and alpha_pattern. AdapterError for a model whose matrices
    transformers keeps fused (Phi-3, InternLM 2), and for replaced tensors.
    """
    from safetensors.numpy import save

    if FUSED.get(config.architecture) or adapter.replaced:
        what = "tensors that it replaces" if adapter.replaced else f"matrices that transformers keeps fused in {config.architecture}"
        raise AdapterError(f"{folder} cannot be written as a peft adapter: this one has {what}; merge it instead")
    changes = adapter.matrices
    if len({change.magnitude is None for change in changes.values()}) > 1:
        raise AdapterError(f"{folder} cannot be written as a peft adapter: only some of its matrices have magnitudes; merge it instead")
    dora = any(change.magnitude is not None for change in changes.values())
    modules = {name: hf_from_canonical(name, config.architecture).removesuffix(".weight") for name in changes}
    first = next(iter(changes.values()))
    rank, alpha = first.rank, first.scale * first.rank
    dtype = {"F32": np.float32, "F16": np.float16}[kind]
    tensors: dict[str, np.ndarray] = {}
    for name, change in changes.items():
        order, (b, lengths) = _order(name, config), (change.b, change.magnitude)
        if order is not None:
            back = np.argsort(order)
            b, lengths = b[back], None if lengths is None else lengths[back]
        embedding = name == EMBEDDING
        for half, values in (("A", change.a), ("B", b)):
            suffix = f"lora_embedding_{half}" if embedding else f"lora_{half}.weight"
            tensors[f"{PREFIX}{modules[name]}.{suffix}"] = np.ascontiguousarray(values, dtype)
        if lengths is not None:
            tensors[f"{PREFIX}{modules[name]}.lora_magnitude_vector"] = np.ascontiguousarray(lengths, dtype)
    settings = {
        "base_model_name_or_path": adapter.base or None,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": _whole(alpha),
        "lora_dropout": dropout,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": rank,
        "rank_pattern": {modules[name]: change.rank for name, change in changes.items() if change.rank != rank},
        "alpha_pattern": {
            modules[name]: _whole(c.scale * c.rank) for name, c in changes.items() if abs(c.scale * c.rank - alpha) > 1e-6 * abs(alpha)
        },
        "target_modules": _target_modules(modules, config),
        "task_type": "CAUSAL_LM",
        "use_dora": dora,
        "use_rslora": False,
    }
    folder.mkdir(parents=True, exist_ok=True)
    _write_whole(folder / "adapter_model.safetensors", save(tensors, metadata={"format": "pt"}))
    _write_whole(folder / CONFIG, (json.dumps(settings, indent=2, sort_keys=True) + "\n").encode())
    return folder


def _whole(alpha: float) -> int | float:
    return round(alpha) if abs(alpha - round(alpha)) < 1e-6 * max(1.0, abs(alpha)) else alpha


def _target_modules(modules: Mapping[str, str], config: LlamaConfig) -> list[str]:
    """The short names where they mean these modules and no others, else the whole ones."""
    short = sorted({module.rpartition(".")[2] for module in modules.values()})
    meant = {module for module in modules_of(config) if module.rpartition(".")[2] in short}
    return short if meant == set(modules.values()) else sorted(modules.values())


def _write_whole(path: Path, data: bytes) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise AdapterError(f"{path} cannot be written ({error.strerror}); make room or choose another place") from None
    finally:
        part.unlink(missing_ok=True)
