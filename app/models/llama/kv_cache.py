"""Keys and values of one conversation: a fixed capacity, a position, and the ids that stand at each."""

from dataclasses import dataclass

import numpy as np
from tinygrad import Tensor
from tinygrad.dtype import DType

from app.models.llama.config import LlamaConfig


@dataclass(frozen=True)
class LayerCache:
    """One layer's keys and values, (KvH, rows, Hd) each; keys are stored rotated."""

    k: Tensor
    v: Tensor


class KVCache:
    """What the model has read: `tokens[i]` stands at position i, rows beyond len(tokens) hold nothing that counts."""

    def __init__(self, config: LlamaConfig, capacity: int, rows: int, dtype: DType, device: str):
        self.capacity, self.rows = capacity, rows
        self.tokens: list[int] = []
        shape = (config.n_kv_heads, rows, config.head_dim)

        def empty() -> Tensor:
            # zeros, because a masked score of uninitialised memory could still be a NaN
            return Tensor.zeros(*shape, dtype=dtype, device=device).contiguous().realize()

        self.layers = tuple(LayerCache(empty(), empty()) for _ in range(config.n_layers))

    @property
    def tensors(self) -> list[Tensor]:
        """Keys and values of every layer, in the order the engine's graphs take them."""
        return [t for layer in self.layers for t in (layer.k, layer.v)]

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes() for t in self.tensors)

    def truncate(self, n: int) -> None:
        """Forget every position from n on."""
        if not 0 <= n <= len(self.tokens):
            raise ValueError(f"truncate({n}) of a cache that holds {len(self.tokens)} tokens")
        del self.tokens[n:]

    def common_prefix(self, ids: list[int]) -> int:
        """How many of `ids`, from the first on, are already held."""
        held = np.array(self.tokens[: len(ids)], np.int64)
        differs = np.flatnonzero(held != np.array(ids[: len(held)], np.int64))
        return int(differs[0]) if len(differs) else len(held)
