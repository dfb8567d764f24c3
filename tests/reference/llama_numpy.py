"""A LLaMA in plain float32 NumPy, written to be read: the oracle that every faster path is held against.

Nothing of ours is used: files are read by the gguf package's own reader and dequantisers, names are GGUF's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np


@dataclass(frozen=True)
class Sizes:
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    norm_eps: float
    rope_theta: float

    @classmethod
    def from_gguf(cls, reader: gguf.GGUFReader) -> "Sizes":
        def read(key: str) -> float:
            field = reader.get_field(f"llama.{key}")
            assert field is not None, key
            return field.contents()

        n_heads = int(read("attention.head_count"))
        head_dim = int(read("attention.key_length")) if reader.get_field("llama.attention.key_length") else None
        return cls(
            n_layers=int(read("block_count")),
            n_heads=n_heads,
            n_kv_heads=int(read("attention.head_count_kv")),
            head_dim=head_dim or int(read("embedding_length")) // n_heads,
            norm_eps=read("attention.layer_norm_rms_epsilon"),
            rope_theta=read("rope.freq_base"),
        )


def read_gguf(path: Path | str) -> tuple[Sizes, dict[str, np.ndarray]]:
    """Sizes and every tensor as float32, matrices (out, in)."""
    reader = gguf.GGUFReader(path)
    weights = {
        tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32).reshape(tensor.shape[::-1])
        for tensor in reader.tensors
    }
    return Sizes.from_gguf(reader), weights


def logits(ids: Sequence[int], sizes: Sizes, weights: Mapping[str, np.ndarray]) -> np.ndarray:
    """float32 (T, V): the logits after each of T ids."""
    out: np.ndarray = hidden(ids, sizes, weights) @ weights.get("output.weight", weights["token_embd.weight"]).T
    return out


def hidden(ids: Sequence[int], sizes: Sizes, weights: Mapping[str, np.ndarray]) -> np.ndarray:
    """float32 (T, D): the normed hidden states that the head reads."""
    s, w = sizes, weights
    T = len(ids)
    cos, sin = rope_table(T, s.head_dim, s.rope_theta)  # (T, Hd/2) each
    unseen = np.triu(np.full((T, T), -np.inf, np.float32), 1)  # a token sees itself and what came before
    x = w["token_embd.weight"][np.asarray(ids)]  # (T, D)
    for n in range(s.n_layers):

        def layer(name: str, n: int = n) -> np.ndarray:
            return w[f"blk.{n}.{name}.weight"]

        h = rms_norm(x, layer("attn_norm"), s.norm_eps)
        q = rotate((h @ layer("attn_q").T).reshape(T, s.n_heads, s.head_dim), cos, sin)  # (T, H, Hd)
        k = rotate((h @ layer("attn_k").T).reshape(T, s.n_kv_heads, s.head_dim), cos, sin)  # (T, KvH, Hd)
        v = (h @ layer("attn_v").T).reshape(T, s.n_kv_heads, s.head_dim)
        heads = []
        for head in range(s.n_heads):
            shared = head * s.n_kv_heads // s.n_heads
            scores = q[:, head] @ k[:, shared].T / np.float32(np.sqrt(s.head_dim)) + unseen  # (T, T)
            heads.append(softmax(scores) @ v[:, shared])
        x = x + np.concatenate(heads, 1) @ layer("attn_output").T
        h = rms_norm(x, layer("ffn_norm"), s.norm_eps)
        gate = h @ layer("ffn_gate").T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ layer("ffn_up").T)) @ layer("ffn_down").T
    return rms_norm(x, w["output_norm.weight"], s.norm_eps)


def rms_norm(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    """x (…, D) over the root of its mean square."""
    scaled: np.ndarray = x / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(eps)) * weight
    return scaled


def rope_table(T: int, head_dim: int, theta: float) -> tuple[np.ndarray, np.ndarray]:
    """(cos, sin) of position × theta^(-2i/Hd), float32 (T, Hd/2) each (Su et al. 2021, arXiv:2104.09864)."""
    angles = np.outer(np.arange(T), theta ** (-np.arange(0, head_dim, 2) / head_dim))
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def rotate(x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    """Turn each adjacent pair of x (T, heads, Hd) by its angle."""
    a, b = x[..., 0::2], x[..., 1::2]
    cos, sin = cos[:, None], sin[:, None]  # the same for all heads
    return np.stack([a * cos - b * sin, a * sin + b * cos], -1).reshape(x.shape)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    out: np.ndarray = e / e.sum(-1, keepdims=True)
    return out
