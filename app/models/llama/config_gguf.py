"""A model's configuration from the metadata of a GGUF file, as llama.cpp honours it for its architecture."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from app.models.llama import rope_scaling
from app.models.llama.config import LlamaConfig, gemma_scale, layer_windows, without_idle_windows
from app.models.llama.config_reader import MAX_LAYERS, ConfigError, MetadataReader
from app.models.llama.sanitize import quoted
from app.models.llama.traits import Experts, Rope, Traits, Yarn

REQUIRED = ("context_length", "embedding_length", "block_count", "attention.head_count")
LOCAL_THETA = 10_000.0  # of Gemma 3's windows, which its files do not name


def has_window(architecture: str, layer: int) -> bool:
    """Does a layer have the window of the metadata, where these do not say which ones do?"""
    if architecture == "gemma2":
        return layer % 2 == 0
    return architecture != "gemma3" or (layer + 1) % 6 != 0


@dataclass(frozen=True)
class _Sizes:
    """What traits depend on."""

    read: MetadataReader
    n_layers: int
    dim: int
    n_heads: int
    head_dim: int
    rope_dim: int

    def number(self, key: str, default: float = 0.0) -> float:
        return self.read.positive(key, default=default) if key in self.read else default

    def windows(self) -> tuple[int, ...]:
        window = self.read.scalar("attention.sliding_window", 0)
        if not isinstance(window, int) or isinstance(window, bool) or window < 0:
            raise self.read.fail(f"gives {self.read.prefix}attention.sliding_window as {quoted(window)}; a whole number is needed")
        pattern = self.read.metadata.get(f"{self.read.prefix}attention.sliding_window_pattern")
        if isinstance(pattern, np.ndarray | list) and len(pattern) == self.n_layers:
            return layer_windows(self.n_layers, window, lambda layer: bool(pattern[layer]))
        return layer_windows(self.n_layers, window, lambda layer: has_window(self.read.prefix.rstrip("."), layer))

    def attention_scale(self, width: float = 0.0) -> float:
        """From the metadata where it is given, otherwise from the width of a head."""
        return self.number("attention.scale", width**-0.5 if width else 0.0)

    def experts(self, hidden_key: str, normalize: bool = True) -> Experts | None:
        count = self.read.scalar("expert_count", 0)
        if not count:
            return None
        used = self.read.size("expert_used_count")
        return Experts(self.read.size("expert_count"), used, self.read.size(hidden_key), normalize)


def _llama(s: _Sizes) -> Traits:
    return Traits(windows=s.windows(), experts=s.experts("feed_forward_length"))


def _qwen3(s: _Sizes) -> Traits:
    return Traits(head_norm="head", windows=s.windows())


def _qwen3_moe(s: _Sizes) -> Traits:
    return replace(_qwen3(s), experts=s.experts("expert_feed_forward_length"))


def _gemma(s: _Sizes) -> Traits:
    return Traits(activation="gelu", embedding_scale=gemma_scale(s.dim))


def _gemma2(s: _Sizes) -> Traits:
    # 27B divides by the width that a head would have if heads shared the model's (llama.cpp knows it by its layers)
    width = s.dim / s.n_heads if s.n_layers == 46 else s.head_dim
    return replace(
        _gemma(s),
        post_norm=True,
        attention_scale=s.attention_scale(width),
        attention_softcap=s.number("attn_logit_softcapping", 50.0),
        logit_softcap=s.number("final_logit_softcapping", 30.0),
        windows=s.windows(),
    )


def _gemma3(s: _Sizes) -> Traits:
    width = s.dim / s.n_heads if s.n_layers == 62 else s.head_dim
    return replace(
        _gemma(s),
        head_norm="head",
        post_norm=True,
        attention_scale=s.attention_scale(width),
        logit_softcap=s.number("final_logit_softcapping"),
        windows=s.windows(),
        local_rope=Rope(s.number("rope.freq_base_swa", LOCAL_THETA), s.rope_dim),
    )


def _granite(s: _Sizes) -> Traits:
    return Traits(
        embedding_scale=s.number("embedding_scale", 1.0),
        residual_scale=s.number("residual_scale", 1.0),
        logit_scale=1 / s.number("logit_scale", 1.0),
        attention_scale=s.attention_scale(),
    )


@dataclass(frozen=True)
class Architecture:
    """One of llama.cpp's names."""

    traits: Callable[[_Sizes], Traits]
    half_split: bool = True  # RoPE pairs entry i with i + rope_dim / 2; converters put the others' side by side
    fused: bool = False  # one tensor of queries, keys and values, one of gate and up


ARCHITECTURES = {
    "llama": Architecture(_llama, half_split=False),
    "qwen2": Architecture(lambda s: Traits(windows=s.windows())),
    "qwen3": Architecture(_qwen3),
    "qwen3moe": Architecture(_qwen3_moe),
    "phi3": Architecture(lambda s: Traits(windows=s.windows()), fused=True),
    "gemma": Architecture(_gemma),
    "gemma2": Architecture(_gemma2),
    "gemma3": Architecture(_gemma3),
    "smollm3": Architecture(lambda s: Traits(unrotated=tuple(range(3, s.n_layers, 4))), half_split=False),
    "granite": Architecture(_granite, half_split=False),
    "olmo2": Architecture(lambda s: Traits(head_norm="all", pre_norm=False, post_norm=True, windows=s.windows())),
    "stablelm": Architecture(lambda s: Traits(layer_norm=True, norm_bias=True)),
    "command-r": Architecture(lambda s: Traits(layer_norm=True, parallel=True, logit_scale=s.number("logit_scale", 1.0)), half_split=False),
    "internlm2": Architecture(lambda s: Traits(), half_split=False),
}


def architecture_of(metadata: Mapping[str, Any], path: Path | str) -> tuple[str, Architecture]:
    """ConfigError names an architecture that there is none for."""
    name = metadata.get("general.architecture")
    if not isinstance(name, str) or name not in ARCHITECTURES:
        named = "names no architecture" if name is None else f"has the architecture {quoted(name)}"
        raise ConfigError(f"{path} {named}; Townhall runs {', '.join(ARCHITECTURES)}")
    return name, ARCHITECTURES[name]


def config_from_gguf(metadata: Mapping[str, Any], tensor_names: Collection[str], path: Path | str) -> LlamaConfig:
    """Raises ConfigError for another architecture, a missing or absurd value, or a feature that must not be ignored.

    The factors in tensors (rope_freqs.weight, rope_factors_long.weight …) are the checkpoint's to read: metadata does not hold them.
    """
    name, architecture = architecture_of(metadata, path)
    read = MetadataReader(metadata, f"{name}.", path)
    layer_norm = name in ("stablelm", "command-r")
    eps = "attention.layer_norm_epsilon" if layer_norm else "attention.layer_norm_rms_epsilon"
    read.require(*REQUIRED, eps)
    dim, n_heads = read.size("embedding_length"), read.size("attention.head_count")
    head_dim = read.head_dim("attention.key_length", dim, n_heads)
    if (value_dim := read.size("attention.value_length", default=head_dim)) != head_dim:
        raise read.fail(f"has keys of {head_dim} and values of {value_dim}, which Townhall does not support")
    rope_dim = read.rope_dim(read.size("rope.dimension_count", default=head_dim), head_dim)
    theta = read.rope_base("rope.freq_base")
    n_layers = read.size("block_count", limit=MAX_LAYERS)
    factors, scale, yarn = _scaling(read, rope_dim, theta)
    traits = architecture.traits(_Sizes(read, n_layers, dim, n_heads, head_dim, rope_dim))
    if traits.experts is None and (count := read.scalar("expert_count", 0)) != 0:
        raise read.unsupported(f"a mixture of {quoted(count)} experts")
    traits = replace(
        traits,
        yarn=yarn,
        qkv_bias="blk.0.attn_q.bias" in tensor_names or "blk.0.attn_qkv.bias" in tensor_names,
        output_bias="blk.0.attn_output.bias" in tensor_names,
        mlp_bias="blk.0.ffn_down.bias" in tensor_names,
        parallel=traits.parallel or (name == "stablelm" and "blk.0.ffn_norm.weight" not in tensor_names),
    )
    return LlamaConfig(
        dim=dim,
        n_layers=n_layers,
        n_heads=n_heads,
        n_kv_heads=read.kv_heads("attention.head_count_kv", n_heads),
        head_dim=head_dim,
        hidden_dim=traits.experts.hidden_dim if traits.experts else read.size("feed_forward_length"),
        vocab_size=read.size("vocab_size") if "vocab_size" in read else _tokens(metadata, name, path),
        norm_eps=read.positive(eps),
        rope_theta=theta,
        context_length=read.size("context_length"),
        rope_dim=rope_dim,
        tied="output.weight" not in tensor_names,
        architecture=name,
        name=str(metadata.get("general.name", "")),
        rope_factors=factors,
        rope_scale=scale,
        traits=without_idle_windows(traits, read.size("context_length")),
    )


def _tokens(metadata: Mapping[str, Any], architecture: str, path: Path | str) -> int:
    tokens = metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, Sequence) or not tokens:
        raise ConfigError(f"{path} has neither {architecture}.vocab_size nor tokenizer.ggml.tokens; use a file that carries its tokenizer")
    return len(tokens)


def _scaling(read: MetadataReader, rope_dim: int, theta: float) -> tuple[tuple[float, ...], float, Yarn | None]:
    """Factors, scale and a description of what llama.cpp's converters write; an unknown scheme is refused by name, never ignored."""
    kind = read.scalar("rope.scaling.type", "none")
    attention = read.positive("rope.scaling.attn_factor", default=1.0)
    key = "rope.scaling.factor" if "rope.scaling.factor" in read or "rope.scale_linear" not in read else "rope.scale_linear"
    factor = read.scalar(key, 1.0)
    if kind == "none" and key == "rope.scaling.factor":
        return (), attention, None
    if kind not in ("none", "linear", "yarn"):
        raise read.unsupported(f"rope scaling {quoted(kind)}")
    if factor in (0.0, 1.0):
        return (), 1.0, None
    factor = read.positive(key)
    if kind != "yarn":
        return rope_scaling.linear(rope_dim, factor), 1.0, None
    original = read.size("rope.scaling.original_context_length", default=read.size("context_length"))
    fast, slow = (read.positive(f"rope.scaling.yarn_beta_{name}", default=value) for name, value in (("fast", 32.0), ("slow", 1.0)))
    extrapolation = read.positive("rope.scaling.yarn_ext_factor", default=1.0)
    factors = rope_scaling.yarn(rope_dim, theta, factor, original, fast, slow, extrapolation)
    scale = rope_scaling.yarn_scale(factor)
    if read.scalar("rope.scaling.yarn_log_multiplier", 0.0) != 0:
        scale /= rope_scaling.yarn_scale(factor, read.positive("rope.scaling.yarn_log_multiplier"))
    # converters write a config.json's attention_factor there, which takes the place of YaRN's own
    scale = read.positive("rope.scaling.yarn_attn_factor", default=scale)
    described = Yarn(factor, original, fast, slow) if extrapolation == 1 else None
    return factors, scale * attention, described
