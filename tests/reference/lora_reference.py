"""A tiny model, a row of two samples and adapters, the same numbers for ours and for peft's training (bench/lora_training.py --oracle)."""

import numpy as np

from tests.reference.tiny import random_weights
from tests.reference.words import TOKENS

LAYERS, DIM, HEADS, KV_HEADS, HEAD_DIM, HIDDEN, VOCAB = 2, 64, 4, 2, 16, 128, len(TOKENS)
THETA, EPS = 10_000.0, 1e-5
RANK, ALPHA = 4, 8.0
STEPS, RATE, DECAY, CLIP = 20, 1e-2, 0.01, 1.0
LENGTHS = (25, 35)
# our name → (transformers' module, rows, columns)
MODULES = {
    "attention.wq": ("self_attn.q_proj", HEADS * HEAD_DIM, DIM),
    "attention.wk": ("self_attn.k_proj", KV_HEADS * HEAD_DIM, DIM),
    "attention.wv": ("self_attn.v_proj", KV_HEADS * HEAD_DIM, DIM),
    "attention.wo": ("self_attn.o_proj", DIM, HEADS * HEAD_DIM),
    "feed_forward.w1": ("mlp.gate_proj", HIDDEN, DIM),
    "feed_forward.w3": ("mlp.up_proj", HIDDEN, DIM),
    "feed_forward.w2": ("mlp.down_proj", DIM, HIDDEN),
}


def weights() -> dict[str, np.ndarray]:
    """By GGUF name, rows of queries and keys with RoPE's pairs side by side."""
    return random_weights(LAYERS, DIM, HEADS, KV_HEADS, HEAD_DIM, HIDDEN, VOCAB, tied=False, seed=3)


def adapters() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(A, B) by our name; B is not zero, so that A has a gradient."""
    random = np.random.default_rng(9)

    def matrix(*shape: int) -> np.ndarray:
        return (0.1 * random.standard_normal(shape)).astype(np.float32)

    names = [(layer, name, rows, cols) for layer in range(LAYERS) for name, (_, rows, cols) in MODULES.items()]
    return {f"layers.{layer}.{name}.weight": (matrix(RANK, cols), matrix(rows, RANK)) for layer, name, rows, cols in names}


def samples() -> list[tuple[np.ndarray, np.ndarray]]:
    """(ids, which of them are learnt) of each."""
    random = np.random.default_rng(4)
    return [(random.integers(3, VOCAB, n), random.random(n) < 0.6) for n in LENGTHS]


def half_split(rows: np.ndarray) -> np.ndarray:
    """Rows of queries or keys as transformers has them: entry i of a head is turned with i + Hd / 2."""
    return rows.reshape(-1, HEAD_DIM // 2, 2, rows.shape[1]).transpose(0, 2, 1, 3).reshape(rows.shape)
