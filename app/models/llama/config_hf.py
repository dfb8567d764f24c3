"""A model's configuration from a config.json, as transformers honours it for its model type.

Every key that changes the computation is honoured or refused by name; one that is not known is kept in `LlamaConfig.unknown_keys`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from app.models.llama import rope_scaling
from app.models.llama.config import LlamaConfig, gemma_scale, layer_windows, without_idle_windows
from app.models.llama.config_reader import MAX_LAYERS, MetadataReader
from app.models.llama.sanitize import quoted
from app.models.llama.traits import Experts, LongRope, Rope, Traits

REQUIRED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu", "gelu_new": "gelu"}
# read here for every type
READ = {*REQUIRED, "model_type", "num_key_value_heads", "head_dim", "hidden_act", "hidden_activation", "rope_theta", "rope_scaling"}
READ |= {"rope_parameters", "max_position_embeddings", "tie_word_embeddings", "quantization_config", "_name_or_path", "vocab_size"}
READ |= {"rms_norm_eps", "layer_norm_eps", "attention_bias", "mlp_bias", "original_max_position_embeddings", "num_local_experts"}
# of no effect on what a model computes of ids
HARMLESS = {"architectures", "transformers_version", "torch_dtype", "dtype", "use_cache", "initializer_range", "auto_map", "pretraining_tp"}
HARMLESS |= {"bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "attention_dropout", "attn_pdrop", "resid_pdrop", "embd_pdrop"}
HARMLESS |= {"hidden_dropout", "dropout", "return_dict", "output_attentions", "output_hidden_states", "torchscript", "id2label", "label2id"}
HARMLESS |= {"is_encoder_decoder", "is_decoder", "chunk_size_feed_forward", "problem_type", "attn_implementation", "_attn_implementation"}
HARMLESS |= {"router_aux_loss_coef", "output_router_logits", "router_jitter_noise", "rope_interleaved", "cache_implementation"}
HARMLESS |= {"cross_attention_hidden_size", "add_cross_attention", "tie_encoder_decoder", "tokenizer_class", "bad_words_ids"}
HARMLESS |= {"max_length", "min_length", "temperature", "top_k", "top_p", "do_sample", "repetition_penalty", "num_return_sequences"}
HARMLESS |= {
    "_flash_attn_2_enabled",
    "use_flash_attn",
    "initializer_factor",
    "begin_suppress_tokens",
    "suppress_tokens",
    "prefix",
    "finetuning_task",
}
HARMLESS |= {"unsloth_version", "unsloth_fixed", "quantization", "_sliding_window_pattern", "sep_token_id", "decoder_start_token_id"}


class Settings:
    """A config.json and what every family reads of it."""

    def __init__(self, config: Mapping[str, Any], path: Path | str):
        self.config, self.read = config, MetadataReader(config, "", path, "use a checkpoint as its authors published it")
        self.read.require(*REQUIRED)
        self.n_layers = self.read.size("num_hidden_layers", limit=MAX_LAYERS)
        self.dim, self.n_heads = self.read.size("hidden_size"), self.read.size("num_attention_heads")
        self.used: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.used.add(key)
        value = self.config.get(key)
        return default if value is None else value

    def number(self, key: str, default: float) -> float:
        self.used.add(key)
        return self.read.positive(key, default=default)

    def size(self, key: str, default: int | None = None) -> int:
        self.used.add(key)
        return self.read.size(key, default=default)

    def refuse(self, key: str, feature: str, plain: Any = False) -> None:
        """Refuse the feature by name where the key asks for it."""
        if self.get(key, plain) != plain:
            raise self.read.unsupported(f"{feature} ({key})")

    def activation(self, default: str = "silu") -> str:
        name = self.get("hidden_activation") or self.get("hidden_act", default)
        if not isinstance(name, str) or name not in ACTIVATIONS:
            raise self.read.unsupported(f"the activation {quoted(name)}")
        return ACTIVATIONS[name]

    def windows(self, has_window: Callable[[int], bool] = lambda layer: True, default: int = 0) -> tuple[int, ...]:
        """The window by layer: of layer_types where there is such a list, else where `has_window`."""
        window = self.get("sliding_window", default)
        if not isinstance(window, int) or isinstance(window, bool) or window < 0:
            raise self.read.fail(f"gives sliding_window as {quoted(window)}; a whole number is needed")
        kinds = self.get("layer_types")
        if kinds is None:
            return layer_windows(self.n_layers, window, has_window)
        known = ("full_attention", "sliding_attention")
        if not isinstance(kinds, list) or len(kinds) != self.n_layers or not all(kind in known for kind in kinds):
            raise self.read.fail(f"gives layer_types that are not {self.n_layers} of {' and '.join(known)}")
        return layer_windows(self.n_layers, window, lambda layer: kinds[layer] == "sliding_attention")

    def optional_windows(self) -> tuple[int, ...]:
        """Qwen's: off unless use_sliding_window, and then from layer max_window_layers on."""
        first = self.size("max_window_layers", 28) if self.get("max_window_layers") != 0 else 0
        if not self.get("use_sliding_window", False):
            self.used |= {"sliding_window", "layer_types"}
            return ()
        return self.windows(lambda layer: layer >= first)


def _llama(s: Settings) -> Traits:
    bias = bool(s.get("attention_bias"))
    return Traits(qkv_bias=bias, output_bias=bias, mlp_bias=bool(s.get("mlp_bias")), activation=s.activation())


def _mistral(s: Settings) -> Traits:
    return Traits(windows=s.windows(), activation=s.activation())


def _mixtral(s: Settings) -> Traits:
    experts = Experts(s.size("num_local_experts", 8), s.size("num_experts_per_tok", 2), s.size("intermediate_size"))
    return Traits(windows=s.windows(), activation=s.activation(), experts=experts)


def _qwen2(s: Settings) -> Traits:
    return Traits(qkv_bias=True, windows=s.optional_windows(), activation=s.activation())


def _qwen3(s: Settings) -> Traits:
    bias = bool(s.get("attention_bias"))
    return Traits(head_norm="head", qkv_bias=bias, output_bias=bias, windows=s.optional_windows(), activation=s.activation())


def _qwen3_moe(s: Settings) -> Traits:
    s.refuse("decoder_sparse_step", "layers without experts", 1)
    s.refuse("mlp_only_layers", "layers without experts", [])
    count = s.size("num_local_experts" if s.get("num_local_experts") is not None else "num_experts", 128)
    s.used.add("shared_expert_intermediate_size")
    experts = Experts(count, s.size("num_experts_per_tok", 8), s.size("moe_intermediate_size", 768), bool(s.get("norm_topk_prob", False)))
    # its layers share one window, whatever layer_types says
    windows = layer_windows(s.n_layers, s.size("sliding_window", 4096), lambda layer: True) if s.get("use_sliding_window", False) else ()
    s.used |= {"sliding_window", "max_window_layers", "layer_types"}
    return replace(_qwen3(s), experts=experts, windows=windows)


def _phi3(s: Settings) -> Traits:
    return Traits(windows=s.windows(), activation=s.activation())


def _gemma(s: Settings) -> Traits:
    bias, activation = bool(s.get("attention_bias")), s.activation("gelu_pytorch_tanh")
    return Traits(qkv_bias=bias, output_bias=bias, activation=activation, embedding_scale=gemma_scale(s.dim))


def _gemma2(s: Settings) -> Traits:
    return replace(
        _gemma(s),
        post_norm=True,
        attention_scale=s.number("query_pre_attn_scalar", 256) ** -0.5,
        attention_softcap=_cap(s, "attn_logit_softcapping", 50.0),
        logit_softcap=_cap(s, "final_logit_softcapping", 30.0),
        windows=s.windows(lambda layer: layer % 2 == 0, 4096),
    )


def _gemma3(s: Settings) -> Traits:
    s.refuse("use_bidirectional_attention", "attention to later tokens")
    s.used |= {"sliding_window_pattern", "rope_local_base_freq"}
    pattern = s.size("sliding_window_pattern", 6)
    parameters = s.get("rope_parameters", {})
    local = parameters.get("sliding_attention") if isinstance(parameters, Mapping) else None
    theta = s.read.rope_base("rope_local_base_freq")
    if isinstance(local, Mapping):  # where transformers 5 keeps it
        theta = MetadataReader(local, "", s.read.path, s.read.mend).rope_base("rope_theta", theta)
    head_dim = s.size("head_dim", 256)
    return replace(
        _gemma(s),
        head_norm="head",
        post_norm=True,
        attention_scale=s.number("query_pre_attn_scalar", 256) ** -0.5,
        attention_softcap=_cap(s, "attn_logit_softcapping"),
        logit_softcap=_cap(s, "final_logit_softcapping"),
        windows=s.windows(lambda layer: (layer + 1) % pattern != 0, 4096),
        local_rope=Rope(theta, head_dim),
    )


def _cap(s: Settings, key: str, default: float = 0.0) -> float:
    value = s.config.get(key, default)
    s.used.add(key)
    return 0.0 if value is None else s.read.positive(key, default=default) if key in s.config else default


def _smollm3(s: Settings) -> Traits:
    interval = s.size("no_rope_layer_interval", 4)
    rotated = s.get("no_rope_layers") or [int((layer + 1) % interval != 0) for layer in range(s.n_layers)]
    if not isinstance(rotated, list) or len(rotated) != s.n_layers:
        raise s.read.fail(f"gives no_rope_layers that are not {s.n_layers} of 0 and 1")
    unrotated = tuple(layer for layer, on in enumerate(rotated) if not on)
    windows = s.windows(lambda layer: layer in unrotated) if s.get("use_sliding_window", False) else ()
    s.used |= {"sliding_window", "layer_types", "max_window_layers"}
    return replace(_llama(s), unrotated=unrotated, windows=windows)


def _granite(s: Settings) -> Traits:
    return replace(
        _llama(s),
        embedding_scale=s.number("embedding_multiplier", 1.0),
        residual_scale=s.number("residual_multiplier", 1.0),
        logit_scale=1 / s.number("logits_scaling", 1.0),
        attention_scale=s.number("attention_multiplier", 1.0),
    )


def _olmo2(s: Settings) -> Traits:
    return replace(_llama(s), head_norm="all", pre_norm=False, post_norm=True)


def _stablelm(s: Settings) -> Traits:
    s.refuse("qk_layernorm", "a norm of its own for each head")
    parallel, bias = bool(s.get("use_parallel_residual", False)), bool(s.get("use_qkv_bias", False))
    return Traits(layer_norm=True, norm_bias=True, parallel=parallel, qkv_bias=bias, activation=s.activation())


def _cohere(s: Settings) -> Traits:
    s.refuse("use_qk_norm", "a norm of its own for each head")
    bias = bool(s.get("attention_bias"))
    scale = s.number("logit_scale", 0.0625)
    return Traits(layer_norm=True, parallel=True, qkv_bias=bias, output_bias=bias, logit_scale=scale, activation=s.activation())


def _internlm2(s: Settings) -> Traits:
    s.refuse("bias", "biases")
    return Traits(activation=s.activation())


@dataclass(frozen=True)
class Family:
    """A model type of transformers, and what it has of its own."""

    traits: Callable[[Settings], Traits]
    eps: float = 1e-6  # where config.json leaves it out
    partial: float | None = None  # share of a head that RoPE turns by default, where the type has such a key
    tied: bool = False  # by default
    half_split: bool = True  # RoPE pairs entry i with i + rope_dim / 2
    norm_offset: float = 0.0  # what a stored norm's weights are short of
    head_dim: int | None = None  # by default
    theta: float = 10_000.0  # by default, of RoPE
    context: int = 2048  # by default


MODEL_TYPES = {
    "llama": Family(_llama),
    "mistral": Family(_mistral, context=131_072),
    "mixtral": Family(_mixtral, eps=1e-5, theta=1e6, context=131_072),
    "qwen2": Family(_qwen2, context=32_768),
    "qwen3": Family(_qwen3, head_dim=128, context=32_768),
    "qwen3_moe": Family(_qwen3_moe, context=32_768),
    "phi3": Family(_phi3, eps=1e-5, partial=1.0, context=4096),
    "gemma": Family(_gemma, tied=True, norm_offset=1.0, head_dim=256, context=8192),
    "gemma2": Family(_gemma2, tied=True, norm_offset=1.0, head_dim=256, context=8192),
    "gemma3_text": Family(_gemma3, tied=True, norm_offset=1.0, head_dim=256, theta=1e6, context=131_072),
    "smollm3": Family(_smollm3, tied=True, theta=2e6, context=32_768),
    "granite": Family(_granite),
    "olmo2": Family(_olmo2, eps=1e-5),
    "stablelm": Family(_stablelm, eps=1e-5, partial=0.25, context=4096),
    "cohere": Family(_cohere, eps=1e-5, tied=True, half_split=False, theta=5e5, context=8192),
    "internlm2": Family(_internlm2),
}


def family_of(config: Mapping[str, Any], path: Path | str) -> Family:
    """ConfigError names a model type that there is none for."""
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in MODEL_TYPES:
        read = MetadataReader(config, "", path, "use another checkpoint")
        raise read.fail(f"has the model type {quoted(kind)}, where Townhall runs {', '.join(MODEL_TYPES)}")
    return MODEL_TYPES[kind]


def is_tied(config: Mapping[str, Any], family: Family) -> bool:
    """Is the output head the embedding?"""
    value = config.get("tie_word_embeddings")
    return family.tied if value is None else value is True


def config_from_hf(config: Mapping[str, Any], vocab_size: int, path: Path | str) -> LlamaConfig:
    """From a config.json; `vocab_size` is what the embedding has. ConfigError for a missing or absurd value and what is not supported."""
    family = family_of(config, path)
    settings = Settings(config, path)
    read, kind = settings.read, str(config["model_type"])
    if config.get("quantization_config"):
        raise read.unsupported("weights quantised by another program (quantization_config)")
    traits = family.traits(settings)
    if traits.experts is None and config.get("num_local_experts"):
        raise read.unsupported(f"a mixture of {quoted(config.get('num_local_experts'))} experts")
    head_dim = read.head_dim("head_dim", settings.dim, settings.n_heads)
    if family.head_dim is not None and "head_dim" not in read:
        head_dim = family.head_dim
    scaling = _scaling(config, read)
    theta = read.rope_base("rope_theta", family.theta)
    if "rope_theta" in scaling:  # where transformers 5 keeps it
        theta = MetadataReader(scaling, "", path, read.mend).rope_base("rope_theta")
    rope_dim = head_dim
    if family.partial is not None:
        settings.used.add("partial_rotary_factor")
        source = scaling if "partial_rotary_factor" in scaling else config
        share = MetadataReader(source, "", path, read.mend).positive("partial_rotary_factor", default=family.partial)
        rope_dim = read.rope_dim(int(head_dim * min(share, 2.0)), head_dim)
    rope_dim = read.rope_dim(rope_dim, head_dim)
    context = read.size("max_position_embeddings", default=family.context)
    factors, scale, described = rope_scaling.from_hf(scaling, rope_dim, theta, context, config, read.fail)
    if isinstance(described, LongRope):
        traits = replace(traits, long_rope=described)
    elif described is not None:
        traits = replace(traits, yarn=described)
    if traits.local_rope is not None:
        traits = replace(traits, local_rope=replace(traits.local_rope, dim=rope_dim))
    name = config.get("_name_or_path")
    known = READ | HARMLESS | settings.used
    return LlamaConfig(
        dim=settings.dim,
        n_layers=settings.n_layers,
        n_heads=settings.n_heads,
        n_kv_heads=read.kv_heads("num_key_value_heads", settings.n_heads),
        head_dim=head_dim,
        hidden_dim=traits.experts.hidden_dim if traits.experts else read.size("intermediate_size"),
        vocab_size=vocab_size,
        norm_eps=read.positive("layer_norm_eps" if traits.layer_norm else "rms_norm_eps", default=family.eps),
        rope_theta=theta,
        context_length=context,
        rope_dim=rope_dim,
        tied=is_tied(config, family),
        architecture=kind,
        name=name if isinstance(name, str) else "",
        rope_factors=factors,
        rope_scale=scale,
        traits=without_idle_windows(traits, context),
        unknown_keys=tuple(sorted(key for key, value in config.items() if key not in known and value not in (None, False))),
    )


def _scaling(config: Mapping[str, Any], read: MetadataReader) -> Mapping[str, Any]:
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if isinstance(scaling, Mapping) and isinstance(
        scaling.get("full_attention"), Mapping
    ):  # by kind of layer: the window's is the family's
        scaling = scaling["full_attention"]
    if not isinstance(scaling, Mapping):
        raise read.fail(f"gives rope_scaling as {quoted(scaling)}")
    return scaling
