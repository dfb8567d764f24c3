"""What one LLaMA is: its sizes, read from a file's metadata and checked once."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from app.models.llama.wording import quoted
from ext.tinygrad.errors import TownhallError

SUPPORTED_ARCHITECTURES = ("llama",)
# no real dimension comes near these; larger ones would only fail later, as a failed allocation
MAX_SIZE = 1 << 24
MAX_LAYERS = 1 << 10
REQUIRED = (
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "attention.head_count",
    "attention.layer_norm_rms_epsilon",
)


class ConfigError(TownhallError):
    """Metadata that describes no model Townhall can run."""


@dataclass(frozen=True)
class LlamaConfig:
    dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int  # equals n_heads without GQA
    head_dim: int  # dim / n_heads unless the file says otherwise
    hidden_dim: int  # of the feed-forward
    vocab_size: int  # rows of the embedding; the tokenizer may know fewer
    norm_eps: float
    rope_theta: float
    context_length: int  # tokens the model was trained for
    rope_dim: int  # leading entries of each head that RoPE turns; the rest pass through
    tied: bool  # the output head is the embedding
    architecture: str = "llama"
    name: str = ""

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any], tensor_names: Collection[str], path: Path | str) -> "LlamaConfig":
        """Raises ConfigError for another architecture, a missing or absurd value, or a feature that must not be ignored."""
        architecture = metadata.get("general.architecture")
        if not isinstance(architecture, str) or architecture not in SUPPORTED_ARCHITECTURES:
            named = "names no architecture" if architecture is None else f"has the architecture {quoted(architecture)}"
            raise ConfigError(f"{path} {named}; Townhall runs {', '.join(SUPPORTED_ARCHITECTURES)}")
        read = _Reader(metadata, f"{architecture}.", path)
        read.require(*REQUIRED)
        _refuse_unsupported(read, tensor_names)

        dim, n_heads = read.size("embedding_length"), read.size("attention.head_count")
        n_kv_heads = read.size("attention.head_count_kv", default=n_heads)
        if n_heads % n_kv_heads:
            raise read.fail(f"has {n_heads} query heads, which {n_kv_heads} key/value heads cannot share evenly")
        if "attention.key_length" not in read and dim % n_heads:
            raise read.fail(f"has dim {dim}, which {n_heads} heads cannot share evenly")
        head_dim = read.size("attention.key_length", default=dim // n_heads)
        if (value_dim := read.size("attention.value_length", default=head_dim)) != head_dim:
            raise read.fail(f"has keys of {head_dim} and values of {value_dim}, which Townhall does not support")
        rope_dim = read.size("rope.dimension_count", default=head_dim)
        if rope_dim % 2 or rope_dim > head_dim:
            raise read.fail(f"turns {rope_dim} entries of heads of {head_dim} by RoPE; an even number up to {head_dim} is possible")
        return cls(
            dim=dim,
            n_layers=read.size("block_count", limit=MAX_LAYERS),
            n_heads=n_heads,
            n_kv_heads=n_kv_heads,
            head_dim=head_dim,
            hidden_dim=read.size("feed_forward_length"),
            vocab_size=read.size("vocab_size") if "vocab_size" in read else _tokens(metadata, path),
            norm_eps=read.positive("attention.layer_norm_rms_epsilon"),
            rope_theta=read.positive("rope.freq_base", default=10_000.0),
            context_length=read.size("context_length"),
            rope_dim=rope_dim,
            tied="output.weight" not in tensor_names,
            architecture=architecture,
            name=str(metadata.get("general.name", "")),
        )


class _Reader:
    """Checked access to the metadata below one architecture's prefix."""

    def __init__(self, metadata: Mapping[str, Any], prefix: str, path: Path | str) -> None:
        self.metadata, self.prefix, self.path = metadata, prefix, path

    def __contains__(self, key: str) -> bool:
        return self.prefix + key in self.metadata

    def fail(self, fault: str) -> ConfigError:
        return ConfigError(f"{self.path} {fault}; use a file that a current llama.cpp converted")

    def require(self, *keys: str) -> None:
        if missing := [self.prefix + key for key in keys if key not in self]:
            raise self.fail(f"lacks {', '.join(missing)} in its metadata")

    def scalar(self, key: str, default: Any) -> Any:
        """The value; of a per-layer array, the one value that all layers share."""
        value = self.metadata.get(self.prefix + key, default)
        if isinstance(value, np.ndarray):
            if len(set(value.tolist())) != 1:
                raise self.fail(f"gives {self.prefix + key} per layer, which Townhall does not support")
            value = value.tolist()[0]
        return value

    def size(self, key: str, default: int | None = None, limit: int = MAX_SIZE) -> int:
        value = self.scalar(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= limit:
            raise self.fail(f"gives {self.prefix + key} as {quoted(value)}; a whole number from 1 to {limit:,} is needed")
        return value

    def positive(self, key: str, default: float | None = None) -> float:
        value = self.scalar(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value) or value <= 0:
            raise self.fail(f"gives {self.prefix + key} as {quoted(value)}; a positive number is needed")
        return float(value)


def _tokens(metadata: Mapping[str, Any], path: Path | str) -> int:
    tokens = metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, Sequence) or not tokens:
        raise ConfigError(f"{path} has neither llama.vocab_size nor tokenizer.ggml.tokens; use a file that carries its tokenizer")
    return len(tokens)


def _refuse_unsupported(read: _Reader, tensor_names: Collection[str]) -> None:
    """Features that change the result and are not built yet are refused by name, never ignored."""
    scaling = read.scalar("rope.scaling.type", "none")
    factors = [read.scalar(key, 1.0) for key in ("rope.scaling.factor", "rope.scale_linear")]
    scales = any(factor not in (0.0, 1.0) for factor in factors)
    experts, window, context = (read.scalar(key, 0) for key in ("expert_count", "attention.sliding_window", "context_length"))
    faults = (
        (f"rope scaling {quoted(scaling)}", scaling not in ("none", "linear") or (scaling == "linear" and scales)),
        ("rope scaling 'linear'", factors[1] not in (0.0, 1.0)),
        ("rope scaling 'llama3' (rope_freqs.weight)", "rope_freqs.weight" in tensor_names),
        (f"a mixture of {quoted(experts)} experts", experts != 0),
        (f"a sliding window of {window}", isinstance(window, int) and isinstance(context, int) and 0 < window < context),
    )
    for feature, asked in faults:
        if asked:
            raise ConfigError(f"{read.path} needs {feature}, which Townhall does not support yet; use a plain LLaMA without it")
