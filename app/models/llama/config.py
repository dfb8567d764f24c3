"""What one LLaMA is: its sizes, read from a file's metadata and checked once."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.models.llama import rope_scaling
from app.models.llama.config_reader import MAX_LAYERS, ConfigError, MetadataReader
from app.models.llama.sanitize import quoted

__all__ = ["ConfigError", "LlamaConfig"]

SUPPORTED_ARCHITECTURES = ("llama",)
# both are this decoder; Mistral's window is honoured as a limit
HF_MODEL_TYPES = ("llama", "mistral")
REQUIRED = (
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "attention.head_count",
    "attention.layer_norm_rms_epsilon",
)
HF_REQUIRED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
META_REQUIRED = ("dim", "n_layers", "n_heads", "norm_eps")


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
    rope_factors: tuple[float, ...] = ()  # what each of RoPE's frequencies is divided by, where the model stretches them
    rope_scale: float = 1.0  # of RoPE's cosines and sines (YaRN)
    window: int = 0  # of sliding attention where the model declares one: the context length ends there

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any], tensor_names: Collection[str], path: Path | str) -> "LlamaConfig":
        """Raises ConfigError for another architecture, a missing or absurd value, or a feature that must not be ignored.

        The factors in a tensor rope_freqs.weight are the checkpoint's to read: metadata does not hold them.
        """
        architecture = metadata.get("general.architecture")
        if not isinstance(architecture, str) or architecture not in SUPPORTED_ARCHITECTURES:
            named = "names no architecture" if architecture is None else f"has the architecture {quoted(architecture)}"
            raise ConfigError(f"{path} {named}; Townhall runs {', '.join(SUPPORTED_ARCHITECTURES)}")
        read = MetadataReader(metadata, f"{architecture}.", path)
        read.require(*REQUIRED)
        if (experts := read.scalar("expert_count", 0)) != 0:
            raise read.unsupported(f"a mixture of {quoted(experts)} experts")
        dim, n_heads = read.size("embedding_length"), read.size("attention.head_count")
        head_dim = read.head_dim("attention.key_length", dim, n_heads)
        if (value_dim := read.size("attention.value_length", default=head_dim)) != head_dim:
            raise read.fail(f"has keys of {head_dim} and values of {value_dim}, which Townhall does not support")
        rope_dim = read.rope_dim(read.size("rope.dimension_count", default=head_dim), head_dim)
        theta = read.rope_base("rope.freq_base")
        context, window = read.context("context_length", "attention.sliding_window")
        factors, scale = _gguf_scaling(read, rope_dim, theta)
        return cls(
            dim=dim,
            n_layers=read.size("block_count", limit=MAX_LAYERS),
            n_heads=n_heads,
            n_kv_heads=read.kv_heads("attention.head_count_kv", n_heads),
            head_dim=head_dim,
            hidden_dim=read.size("feed_forward_length"),
            vocab_size=read.size("vocab_size") if "vocab_size" in read else _tokens(metadata, path),
            norm_eps=read.positive("attention.layer_norm_rms_epsilon"),
            rope_theta=theta,
            context_length=context,
            rope_dim=rope_dim,
            tied="output.weight" not in tensor_names,
            architecture=architecture,
            name=str(metadata.get("general.name", "")),
            rope_factors=factors,
            rope_scale=scale,
            window=window,
        )

    @classmethod
    def from_hf(cls, config: Mapping[str, Any], vocab_size: int, path: Path | str) -> "LlamaConfig":
        """From a config.json; `vocab_size` is what the embedding has. ConfigError as above."""
        read = MetadataReader(config, "", path, "use a plain LLaMA's checkpoint")
        if (kind := config.get("model_type")) not in HF_MODEL_TYPES:
            raise read.fail(f"has the model type {quoted(kind)}, where Townhall runs {' and '.join(HF_MODEL_TYPES)}")
        read.require(*HF_REQUIRED)
        for feature, asked in (
            ("a bias on its attention", config.get("attention_bias")),
            ("a bias in its feed-forward", config.get("mlp_bias")),
            (f"the activation {quoted(config.get('hidden_act'))}", config.get("hidden_act", "silu") not in ("silu", "swish")),
            ("weights quantised by another program (quantization_config)", config.get("quantization_config")),
            (f"a mixture of {quoted(config.get('num_local_experts'))} experts", config.get("num_local_experts")),
        ):
            if asked:
                raise read.unsupported(feature)
        dim, n_heads = read.size("hidden_size"), read.size("num_attention_heads")
        head_dim = read.head_dim("head_dim", dim, n_heads)
        scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
        if not isinstance(scaling, Mapping):
            raise read.fail(f"gives rope_scaling as {quoted(scaling)}")
        theta = read.rope_base("rope_theta")
        if "rope_theta" in scaling:  # where transformers 5 keeps it
            theta = MetadataReader(scaling, "", path, read.mend).rope_base("rope_theta")
        source = scaling if "partial_rotary_factor" in scaling else config
        share = MetadataReader(source, "", path, read.mend).positive("partial_rotary_factor", default=1.0)
        rope_dim = read.rope_dim(int(head_dim * min(share, 2.0)), head_dim)
        context, window = read.context("max_position_embeddings", "sliding_window", default=2048)
        factors, scale = rope_scaling.from_hf(scaling, rope_dim, theta, context, read.fail)
        names = config.get("_name_or_path")
        return cls(
            dim=dim,
            n_layers=read.size("num_hidden_layers", limit=MAX_LAYERS),
            n_heads=n_heads,
            n_kv_heads=read.kv_heads("num_key_value_heads", n_heads),
            head_dim=head_dim,
            hidden_dim=read.size("intermediate_size"),
            vocab_size=vocab_size,
            norm_eps=read.positive("rms_norm_eps", default=1e-6),
            rope_theta=theta,
            context_length=context,
            rope_dim=rope_dim,
            tied=config.get("tie_word_embeddings") is True,
            name=names if isinstance(names, str) else "",
            rope_factors=factors,
            rope_scale=scale,
            window=window,
        )

    @classmethod
    def from_meta(cls, params: Mapping[str, Any], hidden_dim: int, vocab_size: int, tied: bool, path: Path | str) -> "LlamaConfig":
        """From Meta's params.json, which leaves the widths to the tensors. ConfigError as above."""
        read = MetadataReader(params, "", path, "use the params.json that belongs to these weights")
        read.require(*META_REQUIRED)
        if "moe" in params:
            raise read.unsupported("a mixture of experts")
        declared = params.get("vocab_size", -1)
        if declared != -1 and declared != vocab_size:
            raise read.fail(f"says that the vocabulary has {quoted(declared)} tokens, where the embedding has {vocab_size:,} rows")
        dim, n_heads = read.size("dim"), read.size("n_heads")
        head_dim = read.head_dim("head_dim", dim, n_heads)
        theta = read.rope_base("rope_theta")
        factors: tuple[float, ...] = ()
        if params.get("use_scaled_rope"):
            # LLaMA 3.2's small models are stretched by 32, which their params.json does not always say; all others by 8
            factor = read.positive("rope_scaling_factor", default=32.0 if dim <= 3072 else 8.0)
            high = read.positive("rope_high_freq_factor", default=4.0)
            factors = rope_scaling.llama3(read.rope_dim(head_dim, head_dim), theta, factor, 1.0, high, 8192)
        norm_eps = read.positive("norm_eps")
        large_without_gqa = dim > 5120 and "n_kv_heads" not in read
        usual = _meta_context(theta, norm_eps, bool(factors), large_without_gqa)
        context, window = read.context("max_seq_len", "sliding_window", default=usual)  # Mistral's own folders declare a window
        return cls(
            dim=dim,
            n_layers=read.size("n_layers", limit=MAX_LAYERS),
            n_heads=n_heads,
            n_kv_heads=read.kv_heads("n_kv_heads", n_heads),
            head_dim=head_dim,
            hidden_dim=hidden_dim,
            vocab_size=vocab_size,
            norm_eps=norm_eps,
            rope_theta=theta,
            context_length=context,
            rope_dim=read.rope_dim(head_dim, head_dim),
            tied=tied,
            name="LLaMA",
            rope_factors=factors,
            window=window,
        )


def _meta_context(theta: float, norm_eps: float, scaled: bool, large_without_gqa: bool) -> int:
    """Meta's params.json does not name it: LLaMA 3.1 is recognised by its scaled RoPE, 3 and Code Llama by their base, 2 by its epsilon.

    LLaMA 1 of 65B has that epsilon, too, but LLaMA 2 shares key/value heads above 13B.
    """
    if scaled:
        return 131_072
    if theta == 500_000:
        return 8192
    if theta == 1_000_000:
        return 16_384
    return 4096 if norm_eps == 1e-5 and not large_without_gqa else 2048


def _tokens(metadata: Mapping[str, Any], path: Path | str) -> int:
    tokens = metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, Sequence) or not tokens:
        raise ConfigError(f"{path} has neither llama.vocab_size nor tokenizer.ggml.tokens; use a file that carries its tokenizer")
    return len(tokens)


def _gguf_scaling(read: MetadataReader, rope_dim: int, theta: float) -> tuple[tuple[float, ...], float]:
    """Factors and scale of what llama.cpp writes; an unknown scheme is refused by name, never ignored."""
    kind = read.scalar("rope.scaling.type", "none")
    attention = read.positive("rope.scaling.attn_factor", default=1.0) * read.positive("rope.scaling.yarn_attn_factor", default=1.0)
    key = "rope.scaling.factor" if "rope.scaling.factor" in read or "rope.scale_linear" not in read else "rope.scale_linear"
    factor = read.scalar(key, 1.0)
    if kind == "none" and key == "rope.scaling.factor":
        return (), attention
    if kind not in ("none", "linear", "yarn"):
        raise read.unsupported(f"rope scaling {quoted(kind)}")
    if factor in (0.0, 1.0):
        return (), 1.0
    factor = read.positive(key)
    if kind != "yarn":
        return rope_scaling.linear(rope_dim, factor), 1.0
    original = read.size("rope.scaling.original_context_length", default=read.size("context_length"))
    fast, slow = (read.positive(f"rope.scaling.yarn_beta_{name}", default=value) for name, value in (("fast", 32.0), ("slow", 1.0)))
    extrapolation = read.positive("rope.scaling.yarn_ext_factor", default=1.0)
    factors = rope_scaling.yarn(rope_dim, theta, factor, original, fast, slow, extrapolation)
    return factors, rope_scaling.yarn_scale(factor) * attention
