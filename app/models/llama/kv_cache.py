"""Keys and values of one conversation: a fixed capacity, a position, and the ids that stand at each."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tinygrad import Tensor, dtypes
from tinygrad.dtype import DType

from app.models.llama import snapshot
from app.models.llama.config import LlamaConfig
from app.models.llama.shift import Shifter
from ext.tinygrad import buffers
from ext.tinygrad.kernels.cpu import memory


class CacheError(ValueError):
    """A cache operation outside of what the cache holds; the cache is as it was."""


@dataclass(frozen=True)
class LayerCache:
    """One layer's keys and values, (KvH, rows, Hd) each; keys are stored rotated."""

    k: Tensor
    v: Tensor


class KVCache:
    """What the model has read: `tokens[i]` stands at position i, rows beyond len(tokens) hold nothing that counts."""

    def __init__(self, config: LlamaConfig, capacity: int, rows: int, dtype: DType, device: str, shifter: Shifter, identity: dict[str, str]):
        """`identity` names what made the entries (model, device, kernels …): a snapshot of another identity is foreign."""
        self.capacity, self.identity = capacity, identity
        self.tokens: list[int] = []
        self._shape, self._shifter = (config.n_kv_heads, rows, config.head_dim), shifter
        n = 2 * config.n_layers
        if device == "CPU":  # in huge pages: a long context is read at the speed of memory
            arena = memory.Arena(n * (math.prod(self._shape) * dtype.itemsize + memory.ALIGNMENT))
            tensors = [arena.zeros(*self._shape, dtype=dtype) for _ in range(n)]
        else:
            tensors = [self._zeros(dtype, device) for _ in range(n)]
        self.layers = tuple(LayerCache(k, v) for k, v in zip(tensors[::2], tensors[1::2], strict=True))
        self._lifted: tuple[Tensor, ...] = ()  # keys at position zero, float32; made at the first remove
        self._lifted_tokens = 0  # positions below this one have theirs

    def _zeros(self, dtype: DType, device: str) -> Tensor:
        # zeros, because a masked score of uninitialised memory could still be a NaN
        return Tensor.zeros(*self._shape, dtype=dtype, device=device).contiguous().realize()

    @property
    def tensors(self) -> list[Tensor]:
        """Keys and values of every layer, in the order the engine's graphs take them."""
        return [t for layer in self.layers for t in (layer.k, layer.v)]

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes() for t in (*self.tensors, *self._lifted))

    def common_prefix(self, ids: list[int]) -> int:
        """How many of `ids`, from the first on, are already held."""
        held = np.array(self.tokens[: len(ids)], np.int64)
        differs = np.flatnonzero(held != np.array(ids[: len(held)], np.int64))
        return int(differs[0]) if len(differs) else len(held)

    def truncate(self, n: int) -> None:
        """Forget every position from n on; CacheError unless 0 <= n <= len(tokens)."""
        if not 0 <= n <= len(self.tokens):
            raise CacheError(f"truncate({n}) of a cache that holds {len(self.tokens)} tokens")
        del self.tokens[n:]
        self._lifted_tokens = min(self._lifted_tokens, n)

    def remove(self, start: int, stop: int) -> None:
        """Take positions start … stop - 1 out and move what follows down, nothing computed anew; CacheError unless 0 <= start < stop <= len(tokens)."""
        held = len(self.tokens)
        if not 0 <= start < stop <= held:
            raise CacheError(f"remove({start}, {stop}) of a cache that holds {held} tokens")
        if stop < held:
            if not self._lifted:
                self._lifted = tuple(self._zeros(dtypes.float32, layer.k.device) for layer in self.layers)
            for layer, lifted in zip(self.layers, self._lifted, strict=True):
                self._shifter.lift(layer.k, lifted, self._lifted_tokens, held)
                self._shifter.move(layer.k, layer.v, lifted, stop, start, held - stop)
            self._lifted_tokens = held - (stop - start)
        else:
            self._lifted_tokens = min(self._lifted_tokens, start)
        del self.tokens[start:stop]

    def snapshot(self, path: Path) -> None:
        """Write the held entries to a safetensors file that `restore` can vouch for; the file appears whole or not at all."""
        n, tensors = len(self.tokens), {}
        for i, layer in enumerate(self.layers):
            for name, tensor in (("k", layer.k), ("v", layer.v)):
                tensors[f"layers.{i}.{name}"] = np.ascontiguousarray(buffers.read(tensor, self._host_array(tensor))[:, :n])
        snapshot.save(path, self.identity, self.capacity, self.tokens, tensors)

    def restore(self, path: Path) -> None:
        """Replace what is held by a snapshot's entries; SnapshotError, and an untouched cache, for one that is damaged or foreign."""
        tokens, tensors = snapshot.load(path, self.identity, self.capacity)
        n_kv_heads, _, head_dim = self._shape
        expected = {f"layers.{i}.{name}": tensor for i, layer in enumerate(self.layers) for name, tensor in (("k", layer.k), ("v", layer.v))}
        arrays = {name: self._host_array(tensor) for name, tensor in expected.items()}
        for name, array in arrays.items():
            stored = tensors.get(name)
            if stored is None or stored.shape != (n_kv_heads, len(tokens), head_dim) or stored.dtype != array.dtype:
                raise snapshot.SnapshotError(f"{path} lacks {name} in the shape of this cache")
            array[:, : len(tokens)] = stored
        for name, tensor in expected.items():
            buffers.write(tensor, arrays[name])
        self.tokens, self._lifted_tokens = tokens, 0

    def _host_array(self, tensor: Tensor) -> np.ndarray:
        return np.zeros(self._shape, np.float32 if tensor.dtype == dtypes.float32 else np.float16)
