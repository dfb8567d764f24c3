"""A LLaMA's configuration from Meta's params.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.models.llama import rope_scaling
from app.models.llama.config import LlamaConfig, layer_windows, without_idle_windows
from app.models.llama.config_reader import MAX_LAYERS, MetadataReader
from app.models.llama.sanitize import quoted
from app.models.llama.traits import Traits

REQUIRED = ("dim", "n_layers", "n_heads", "norm_eps")


def config_from_meta(params: Mapping[str, Any], hidden_dim: int, vocab_size: int, tied: bool, path: Path | str) -> LlamaConfig:
    """From Meta's params.json, which leaves the widths to the tensors. ConfigError for a missing or absurd value."""
    read = MetadataReader(params, "", path, "use the params.json that belongs to these weights")
    read.require(*REQUIRED)
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
    window = read.size("sliding_window") if "sliding_window" in read else 0  # Mistral's own folders declare one
    n_layers, context = read.size("n_layers", limit=MAX_LAYERS), read.size("max_seq_len", default=usual)
    return LlamaConfig(
        dim=dim,
        n_layers=n_layers,
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
        traits=without_idle_windows(Traits(windows=layer_windows(n_layers, window, lambda layer: True)), context),
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
