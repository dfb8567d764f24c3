"""A tiny random LLaMA as a GGUF file, with a byte-level BPE and a ChatML template that work: the whole path in milliseconds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from tests.reference.words import MERGES, SPECIAL_TOKENS, TOKENS

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def random_weights(
    n_layers: int, dim: int, n_heads: int, n_kv_heads: int, head_dim: int, hidden_dim: int, vocab_size: int, tied: bool, seed: int
) -> dict[str, np.ndarray]:
    """float32 by GGUF name, scaled so that activations stay near 1 and the logits near ±3."""
    random = np.random.default_rng(seed)

    def matrix(rows: int, cols: int) -> np.ndarray:
        return (random.standard_normal((rows, cols)) / np.sqrt(cols)).astype(np.float32)

    def norm() -> np.ndarray:
        return (1 + 0.1 * random.standard_normal(dim)).astype(np.float32)

    weights = {"token_embd.weight": matrix(vocab_size, dim)}
    for n in range(n_layers):
        weights |= {
            f"blk.{n}.attn_norm.weight": norm(),
            f"blk.{n}.attn_q.weight": matrix(n_heads * head_dim, dim),
            f"blk.{n}.attn_k.weight": matrix(n_kv_heads * head_dim, dim),
            f"blk.{n}.attn_v.weight": matrix(n_kv_heads * head_dim, dim),
            f"blk.{n}.attn_output.weight": matrix(dim, n_heads * head_dim),
            f"blk.{n}.ffn_norm.weight": norm(),
            f"blk.{n}.ffn_gate.weight": matrix(hidden_dim, dim),
            f"blk.{n}.ffn_up.weight": matrix(hidden_dim, dim),
            f"blk.{n}.ffn_down.weight": matrix(dim, hidden_dim),
        }
    weights["output_norm.weight"] = norm()
    if not tied:
        weights["output.weight"] = matrix(vocab_size, dim)
    return weights


def tiny_metadata(
    n_layers: int,
    dim: int,
    n_heads: int,
    n_kv_heads: int,
    head_dim: int,
    hidden_dim: int,
    vocab_size: int,
    context_length: int = 256,
    rope_theta: float = 10_000.0,
    norm_eps: float = 1e-5,
) -> dict[str, Any]:
    """What a GGUF file says of such a model, its tokenizer and its template included."""
    padding = [f"[PAD{n}]" for n in range(len(TOKENS), vocab_size)]
    kinds = [gguf.TokenType.CONTROL] * len(SPECIAL_TOKENS) + [gguf.TokenType.NORMAL] * (len(TOKENS) - len(SPECIAL_TOKENS))
    return {
        "general.architecture": "llama",
        "general.name": "Tiny",
        "llama.context_length": context_length,
        "llama.embedding_length": dim,
        "llama.block_count": n_layers,
        "llama.feed_forward_length": hidden_dim,
        "llama.attention.head_count": n_heads,
        "llama.attention.head_count_kv": n_kv_heads,
        "llama.attention.key_length": head_dim,
        "llama.attention.value_length": head_dim,
        "llama.attention.layer_norm_rms_epsilon": norm_eps,
        "llama.rope.freq_base": rope_theta,
        "llama.rope.dimension_count": head_dim,
        "llama.vocab_size": vocab_size,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": [*TOKENS, *padding],
        "tokenizer.ggml.token_type": [int(kind) for kind in kinds + [gguf.TokenType.UNUSED] * len(padding)],
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.bos_token_id": TOKENS.index("<|im_start|>"),
        "tokenizer.ggml.eos_token_id": TOKENS.index("<|im_end|>"),
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }


def make_tiny_gguf(
    path: Path | str,
    *,
    n_layers: int = 2,
    dim: int = 64,
    n_heads: int = 4,
    n_kv_heads: int = 2,
    head_dim: int | None = None,
    hidden_dim: int = 128,
    vocab_size: int = len(TOKENS),
    type: str = "F32",
    embedding_type: str | None = None,
    seed: int = 0,
    tied: bool = False,
    context_length: int = 256,
    rope_theta: float = 10_000.0,
    norm_eps: float = 1e-5,
    overrides: Mapping[str, Any] | None = None,
    weights: Mapping[str, np.ndarray] | None = None,
    only: bool = False,
) -> Path:
    """Write the file and return its path.

    `type` encodes the matrices (columns must fill its blocks, and the gguf package must know how to quantise to it), `embedding_type`
    the embedding and the output head where they differ; norms stay F32. `vocab_size` beyond the tokenizer's pads the vocabulary with
    unused tokens. `overrides` replaces metadata, or removes it with None; `weights` adds or replaces tensors by GGUF name;
    with `only` they are all there is.
    """
    path = Path(path)
    head_dim = dim // n_heads if head_dim is None else head_dim
    tensors = {} if only else random_weights(n_layers, dim, n_heads, n_kv_heads, head_dim, hidden_dim, vocab_size, tied, seed)
    tensors |= dict(weights or {})
    metadata = tiny_metadata(n_layers, dim, n_heads, n_kv_heads, head_dim, hidden_dim, vocab_size, context_length, rope_theta, norm_eps)
    metadata |= dict(overrides or {})
    writer = gguf.GGUFWriter(path, str(metadata.pop("general.architecture")))
    add_metadata(writer, metadata)
    for name, values in tensors.items():
        kind = gguf.GGMLQuantizationType[(embedding_type or type) if name in ("token_embd.weight", "output.weight") else type]
        if values.ndim == 1:
            kind = gguf.GGMLQuantizationType.F32
        data = gguf.quants.quantize(np.ascontiguousarray(values, np.float32), kind)
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_metadata(writer: gguf.GGUFWriter, metadata: Mapping[str, Any]) -> None:
    """Every value under its key, but for None."""
    for key, value in metadata.items():
        if value is not None:
            writer.add_key_value(key, value, _value_type(value), _item_type(value))


def _value_type(value: Any) -> gguf.GGUFValueType:
    if isinstance(value, bool):
        return gguf.GGUFValueType.BOOL
    if isinstance(value, int):
        return gguf.GGUFValueType.UINT32 if value >= 0 else gguf.GGUFValueType.INT32
    if isinstance(value, float):
        return gguf.GGUFValueType.FLOAT32
    return gguf.GGUFValueType.STRING if isinstance(value, str) else gguf.GGUFValueType.ARRAY


def _item_type(value: Any) -> gguf.GGUFValueType | None:
    if not isinstance(value, list):
        return None
    kind = _value_type(value[0]) if value else gguf.GGUFValueType.INT32
    return gguf.GGUFValueType.INT32 if kind == gguf.GGUFValueType.UINT32 else kind
