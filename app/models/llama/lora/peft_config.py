"""peft's adapter_config.json (peft 0.21): which modules an adapter changes, by what rank and scale.

What cannot be honoured is refused by name.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from app.models.llama.checkpoint.files import read_json
from app.models.llama.lora.adapter import AdapterError
from app.models.llama.lora.name_pattern import NamePatternError, fullmatch
from app.models.llama.sanitize import quoted

CONFIG = "adapter_config.json"
T = TypeVar("T")
MAX_RANK = 1 << 16
MOST_NUMBER = 1e30  # of an alpha or a scale; NaN is not below it, and an int of any size can be compared
MAX_LIST = 1 << 12
# say nothing about what is computed: where it came from, how it was trained and initialised
NOTES = {"base_model_name_or_path", "revision", "task_type", "inference_mode", "auto_mapping", "peft_version", "lora_dropout"}
NOTES |= {"megatron_config", "megatron_core", "loftq_config", "eva_config", "corda_config", "lora_ga_config", "velora_config"}
NOTES |= {
    "qalora_group_size",
    "runtime_config",
    "merge_weights",
    "fan_in_fan_out",
}  # LLaMA's matrices are Linear: peft itself sets the last to false
HONOURED = {"peft_type", "r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "target_modules", "exclude_modules"}
HONOURED |= {"layers_to_transform", "layers_pattern", "modules_to_save", "bias", "init_lora_weights"}
# ways of starting that leave another base behind than the one that is published
CHANGED_BASE = ("pissa", "olora", "corda", "lora_ga", "loftq")


@dataclass(frozen=True)
class PeftConfig:
    """As much of the file as decides what is computed."""

    path: Path
    r: int
    alpha: float
    rslora: bool
    dora: bool
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    targets: str | tuple[str, ...]
    exclude: str | tuple[str, ...]
    layers: tuple[int, ...] | None
    layers_pattern: tuple[str, ...]
    modules_to_save: tuple[str, ...]
    bias: str
    base: str

    def rank_of(self, module: str) -> int:
        return self._by_pattern(self.rank_pattern, module, self.r)

    def scale_of(self, module: str) -> float:
        rank = self.rank_of(module)
        return self._by_pattern(self.alpha_pattern, module, self.alpha) / (math.sqrt(rank) if self.rslora else rank)

    def _by_pattern(self, patterns: Mapping[str, T], module: str, default: T) -> T:
        return next((value for pattern, value in patterns.items() if self._matches(pattern, module, True)), default)

    def _matches(self, pattern: str, module: str, anywhere: bool = False) -> bool:
        try:
            return fullmatch(pattern, module, anywhere)
        except NamePatternError as error:
            raise AdapterError(f"{self.path} has the pattern {quoted(pattern)}, which {error}; list the modules by name") from None

    def targeted(self, modules: Iterable[str]) -> list[str]:
        """Those of the model's modules (model.layers.3.self_attn.q_proj) that the adapter changes."""
        return [module for module in modules if self._is_target(module)]

    def _is_target(self, module: str) -> bool:
        if self._named(self.exclude, module) or self.is_saved_whole(module):
            return False
        if isinstance(self.targets, str):
            if self.targets.lower() == "all-linear":
                return module not in ("lm_head", "output") and "embed" not in module
            return self._matches(self.targets, module)
        if not self._named(self.targets, module):
            return False
        return self.layers is None or self._layer(module) in self.layers

    def _named(self, wanted: str | tuple[str, ...], module: str) -> bool:
        if isinstance(wanted, str):
            return bool(wanted) and self._matches(wanted, module)
        return any(module == name or module.endswith(f".{name}") for name in wanted)

    def is_saved_whole(self, module: str) -> bool:
        """peft: modules_to_save match whole parts of a name, and everything below."""
        parts = module.split(".")
        return any(self._matches(name, ".".join(parts[:n]), True) for name in self.modules_to_save for n in range(1, len(parts) + 1))

    def _layer(self, module: str) -> int | None:
        """The number behind the first `layers`-like part, whose name layers_pattern gives."""
        parts = module.split(".")
        for n, part in enumerate(parts[1:-1], 1):
            if part.isdecimal() and (parts[n - 1] in self.layers_pattern if self.layers_pattern else n > 1):
                return int(part)
        return None


def read_peft_config(path: Path) -> PeftConfig:
    """Of an adapter_config.json; AdapterError for a value that is none, and for what the adapter asks of peft that is not done here."""
    raw = read_json(path)

    def fail(fault: str, mend: str = "save the adapter again with peft") -> AdapterError:
        return AdapterError(f"{path} {fault}; {mend}")

    def flag(key: str) -> bool:
        value = raw.get(key)
        if value not in (None, True, False):
            raise fail(f"gives {key} as {quoted(value)}, which is neither true nor false")
        return bool(value)

    def number(value: Any, what: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < MOST_NUMBER:
            raise fail(f"gives {what} as {quoted(value)}, which is no number")
        return float(value)

    def rank(value: Any, what: str) -> int:
        if type(value) is not int or not 1 <= value <= MAX_RANK:
            raise fail(f"gives {what} as {quoted(value)}, where a rank is a whole number from 1 on")
        return value

    def names(key: str) -> tuple[str, ...]:
        value = raw.get(key) or []
        value = [value] if isinstance(value, str) else value
        if (
            not isinstance(value, list)
            or len(value) > MAX_LIST
            or not all(isinstance(name, str) and 0 < len(name) <= 256 for name in value)
        ):
            raise fail(f"gives {key} as {quoted(value)}, which is no list of names")
        return tuple(value)

    def pattern(key: str) -> str | tuple[str, ...]:
        return value if isinstance(value := raw.get(key), str) else names(key)

    def by_pattern(key: str) -> dict[str, Any]:
        value = raw.get(key) or {}
        if not isinstance(value, dict) or len(value) > MAX_LIST:
            raise fail(f"gives {key} as {quoted(value)}, which is no table")
        return value

    if raw.get("peft_type") != "LORA":
        raise fail(f"has the peft_type {quoted(raw.get('peft_type'))}, where Townhall reads LORA", "train a LoRA adapter")
    if raw.get("task_type") not in (None, "CAUSAL_LM"):
        raise fail(f"has the task_type {quoted(raw['task_type'])}, where Townhall runs CAUSAL_LM", "use an adapter of a language model")
    for key, value in raw.items():
        if key not in HONOURED | NOTES and value and not (key == "lora_bias" and value == "none"):
            raise fail(f"asks for {quoted(key)[1:-1]} ({quoted(value)}), which Townhall does not do", "train without it")
    init = raw.get("init_lora_weights")
    if isinstance(init, str) and init.lower().startswith(CHANGED_BASE):
        mend = "save it with save_pretrained(path_initial_model_for_weight_conversion=…), as an adapter of the published base"
        raise fail(f"has init_lora_weights {quoted(init)}, which changed the base that it was trained on", mend)
    bias = raw.get("bias", "none")
    if bias not in ("none", "all", "lora_only"):
        raise fail(f"gives bias as {quoted(bias)}, where peft has none, all and lora_only")
    layers = raw.get("layers_to_transform")
    layers = [layers] if type(layers) is int else layers
    if layers is not None and not (isinstance(layers, list) and len(layers) <= MAX_LIST and all(type(n) is int for n in layers)):
        raise fail(f"gives layers_to_transform as {quoted(layers)}, which is no list of layers")
    base = raw.get("base_model_name_or_path")
    targets = pattern("target_modules")
    if isinstance(targets, str) and layers and targets.lower() != "all-linear":
        raise fail("has layers_to_transform beside a pattern of target_modules, which peft refuses, too", "name the layers in the pattern")
    return PeftConfig(
        path=path,
        r=rank(raw.get("r", 8), "r"),
        alpha=number(raw.get("lora_alpha", 8), "lora_alpha"),
        rslora=flag("use_rslora"),
        dora=flag("use_dora"),
        rank_pattern={key: rank(value, f"the rank of {quoted(key)}") for key, value in by_pattern("rank_pattern").items()},
        alpha_pattern={key: number(value, f"the alpha of {quoted(key)}") for key, value in by_pattern("alpha_pattern").items()},
        targets=targets,
        exclude=pattern("exclude_modules"),
        layers=tuple(layers) if layers else None,
        layers_pattern=names("layers_pattern"),
        modules_to_save=names("modules_to_save"),
        bias=bias,
        base=base if isinstance(base, str) else "",
    )
