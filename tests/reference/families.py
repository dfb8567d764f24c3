"""Tiny random models of every family: their config.json, and weights that follow from a tensor's name alone.

`python -m bench.families` has transformers compute the logits of each, which tests/data/families.npz keeps; the suite needs no torch.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

VOCAB, CONTEXT = 352, 128
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": VOCAB,
    "max_position_embeddings": CONTEXT,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
LONG_ROPE = {"type": "longrope", "short_factor": [1.0 + 0.1 * i for i in range(8)], "long_factor": [2.0 + 0.5 * i for i in range(8)]}
HALF_LONG_ROPE = {"type": "longrope", "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5], "long_factor": [2.0, 2.5, 3.0, 3.5, 4.0, 4.5]}
# name → what its config.json has beside SIZES
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
    "llama-biased": {"model_type": "llama", "attention_bias": True, "mlp_bias": True, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
    "mistral": {"model_type": "mistral", "sliding_window": 24},
    "mixtral": {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2": {"model_type": "qwen2", "rope_theta": 1000000.0},
    "qwen2-window": {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 20, "max_window_layers": 1},
    "qwen2-yarn": {"model_type": "qwen2", "rope_scaling": YARN},
    "qwen3-yarn": {"model_type": "qwen3", "rope_theta": 1000000.0, "rope_scaling": YARN | {"factor": 3.0, "attention_factor": 1.25}},
    "mistral-yarn": {"model_type": "mistral", "sliding_window": None, "rope_scaling": YARN | {"beta_fast": 24.0, "beta_slow": 2.0}},
    "qwen3": {"model_type": "qwen3", "tie_word_embeddings": True},
    "qwen3-moe": {
        "model_type": "qwen3_moe", "num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 32, "norm_topk_prob": True,
        "decoder_sparse_step": 1, "mlp_only_layers": [],
    },
    "phi3": {"model_type": "phi3", "sliding_window": 30, "original_max_position_embeddings": CONTEXT},
    "phi3-longrope": {"model_type": "phi3", "original_max_position_embeddings": 64, "rope_scaling": LONG_ROPE},
    "phi4-mini": {
        "model_type": "phi3", "original_max_position_embeddings": 64, "rope_scaling": HALF_LONG_ROPE, "partial_rotary_factor": 0.75,
        "tie_word_embeddings": True,
    },
    "gemma": {"model_type": "gemma", "hidden_act": "gelu_pytorch_tanh"},
    "gemma2": {
        "model_type": "gemma2", "query_pre_attn_scalar": 24, "sliding_window": 20, "attn_logit_softcapping": 3.0,
        "final_logit_softcapping": 5.0,
    },
    "gemma3": {
        "model_type": "gemma3_text", "num_hidden_layers": 7, "query_pre_attn_scalar": 24, "sliding_window": 20,
        "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    },
    # as llama.cpp has them: it takes the scale of attention from a head's width
    "gemma2-square": {"model_type": "gemma2", "query_pre_attn_scalar": 16, "sliding_window": 20, "attn_logit_softcapping": 3.0},
    "gemma3-square": {
        "model_type": "gemma3_text", "num_hidden_layers": 7, "query_pre_attn_scalar": 16, "sliding_window": 20,
        "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0,
    },
    "smollm3": {"model_type": "smollm3", "num_hidden_layers": 5, "no_rope_layer_interval": 4, "rope_theta": 5000000.0},
    "granite": {
        "model_type": "granite", "embedding_multiplier": 12.0, "residual_multiplier": 0.22, "logits_scaling": 8.0,
        "attention_multiplier": 0.03125, "tie_word_embeddings": True,
    },
    "olmo2": {"model_type": "olmo2", "rope_theta": 500000.0},
    "stablelm": {"model_type": "stablelm", "use_qkv_bias": True, "partial_rotary_factor": 0.25},
    "stablelm-parallel": {"model_type": "stablelm", "use_parallel_residual": True, "partial_rotary_factor": 0.5},
    "cohere": {"model_type": "cohere", "logit_scale": 0.25},
}  # fmt: skip


POSITIONS = (0, 1, 2, 15, 19, 20, 23, 24, 31, 32, 63, 64, 99)  # whose logits are kept


def config_of(name: str) -> dict[str, Any]:
    """The config.json, as a publisher would write it."""
    return {**SIZES, **FAMILIES[name]}


def values(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """float32: norms around what leaves numbers alone, biases small, matrices of about unit gain."""
    random = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))
    noise = random.standard_normal(shape).astype(np.float32)
    if len(shape) == 1:
        return noise * np.float32(0.2) + np.float32(0 if name.endswith("bias") else 1)
    return noise * np.float32(1.5 / shape[-1] ** 0.5 if "embed" not in name else 1.0)


def ids_of(n: int = 100) -> list[int]:
    """Enough to fill every window above."""
    return [(37 * i + 11) % (VOCAB - 10) + 3 for i in range(n)]


def write(name: str, shapes: dict[str, tuple[int, ...]], folder: Path, tokenizer: bool = True) -> Path:
    """A Hugging Face folder of that family with these tensors."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config_of(name)))
    save_file({tensor: values(tensor, shape) for tensor, shape in shapes.items()}, folder / "model.safetensors")
    if tokenizer:
        from tests.reference.tiny_formats import write_tokenizer_json

        write_tokenizer_json(folder)
    return folder


def published_shapes() -> dict[str, dict[str, tuple[int, ...]]]:
    """Of each family's tensors, as `python -m bench.families` found them."""
    stored = json.loads((Path(__file__).resolve().parents[1] / "data" / "families.json").read_text())
    return {name: {tensor: tuple(shape) for tensor, shape in shapes.items()} for name, shapes in stored.items()}


def write_family(name: str, folder: Path) -> Path:
    """`write` with the tensors that such a model is published with."""
    return write(name, published_shapes()[name], folder)
