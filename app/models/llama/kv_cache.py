"""Keys and values of one conversation: a fixed capacity, a position, and the ids that stand at each; and their shift.

A key at position p was turned by RoPE through p times its frequencies; at another position it must be turned through another angle.
Turning a stored float16 key again and again would add a rounding each time, so the first shift turns a key back to position zero and
keeps that copy in float32 beside the cache; every shift turns the copy. Errors stay at two roundings however often a key moves, and a
conversation that never shifts keeps no copy.
"""

import math
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tinygrad import Tensor, TinyJit, UOp, dtypes
from tinygrad.dtype import DType

from app.models.llama import snapshot
from app.models.llama.config import LlamaConfig
from ext.tinygrad import buffers, pages
from ext.tinygrad.graph.compose import compose
from ext.tinygrad.kernels.packed import memory
from ext.tinygrad.kernels.reference import rotate, store

if TYPE_CHECKING:
    from app.models.llama.transformer import Transformer

CHUNK = 128  # positions a pass moves; no more than the rows a cache has beyond its capacity


def _rows(tensor: Tensor, start: UOp) -> Tensor:
    """CHUNK positions of (KvH, rows, Hd), position first: (CHUNK, KvH, Hd) float32.

    In a buffer of its own, so that source and target may overlap.
    """
    return tensor[:, start : start + CHUNK].cast(dtypes.float32).transpose(0, 1).contiguous()


class _LayerGraph:
    """One captured pass over one layer's tensors, replayed for every layer and chunk."""

    def __init__(self, forward: Any, names: Sequence[str], rows: int):
        self.variables = [UOp.variable(name, 0, rows - CHUNK) for name in names]
        self.names = names

        def run(*args: Any) -> list[Tensor]:
            tensors, positions = args[: -len(names)], args[-len(names) :]
            outputs: list[Tensor] = forward(*tensors, *positions)
            Tensor.realize(*outputs)
            return outputs

        self.jit = TinyJit(run)

    def over(self, layers: Sequence[Sequence[Tensor]], *harmless: int) -> Callable[[Mapping[str, int]], None]:
        """The pass over all layers, to be called with its positions; a first capture runs it on one layer at the `harmless` ones."""
        if self.jit.captured is None:
            self.jit.cnt = 1  # all tensors are realized: capture at once
            self.jit(*layers[0], *(v.bind(p) for v, p in zip(self.variables, harmless, strict=True)))
        composite = compose([(self.jit, list(tensors)) for tensors in layers])
        if composite is not None:
            return composite

        def one_by_one(positions: Mapping[str, int]) -> None:
            for tensors in layers:
                self.jit.captured([t.uop.base for t in tensors], dict(positions))

        return one_by_one


class KeyRotation:
    """Moves the entries of one cache: `lift` and `move` over all of its layers."""

    def __init__(self, lift: Callable[[Mapping[str, int]], None], move: Callable[[Mapping[str, int]], None]):
        self._lift, self._move = lift, move

    def lift(self, start: int, end: int) -> None:
        """Turn the keys at start … end - 1 back to position zero and keep them beside the cache."""
        for chunk in range(start, end, CHUNK):
            self._lift({"start": chunk})

    def move(self, source: int, target: int, count: int) -> None:
        """Move `count` lifted positions from source down to target < source, keys turned for where they come to stand."""
        for done in range(0, count, CHUNK):
            self._move({"source": source + done, "target": target + done})


class Shifter:
    """Lifts and moves chunks of positions; one serves every cache of the same shape."""

    def __init__(self, ropes: Sequence[Tensor], rows: int):
        """`ropes`: the table of each layer."""
        self.ropes, self.rows = ropes, rows

        def lift(k: Tensor, lifted: Tensor, rope: Tensor, start: UOp) -> list[Tensor]:
            angles = rope[start : start + CHUNK]  # (CHUNK, Hd / 2, 2)
            back = Tensor.stack(angles[..., 0], -angles[..., 1], dim=-1)
            return [store(lifted, rotate(_rows(k, start), back), start)]

        def move(k: Tensor, v: Tensor, lifted: Tensor, rope: Tensor, source: UOp, target: UOp) -> list[Tensor]:
            keys, values = _rows(lifted, source), _rows(v, source)
            turned = rotate(keys, rope[target : target + CHUNK])
            return [store(lifted, keys, target), store(k, turned, target), store(v, values, target)]

        self._lift = _LayerGraph(lift, ("start",), rows)
        self._move = _LayerGraph(move, ("source", "target"), rows)

    def over(self, layers: Sequence[tuple[Tensor, Tensor, Tensor]]) -> KeyRotation:
        """For a cache of these (k, v, lifted): (KvH, rows, Hd) each, lifted in float32. What the cache holds is left as it is."""
        # the last rows are there for padding only and hold nothing that counts
        unused = self.rows - CHUNK
        return KeyRotation(
            self._lift.over([(k, lifted, rope) for (k, _, lifted), rope in zip(layers, self.ropes, strict=True)], unused),
            self._move.over([(k, v, lifted, rope) for (k, v, lifted), rope in zip(layers, self.ropes, strict=True)], unused, unused),
        )


_NUMPY = {dtypes.float16: np.float16, dtypes.float32: np.float32}


class CacheError(ValueError):
    """A cache operation outside of what the cache holds; the cache is as it was."""


@dataclass(frozen=True)
class LayerCache:
    """One layer's keys and values, (KvH, rows, Hd) each; keys are stored rotated."""

    k: Tensor
    v: Tensor


@dataclass(frozen=True)
class Entries:
    """Keys and values in host memory: what `tokens` left in a cache, (KvH, len(tokens), Hd) by the tensors' names."""

    tokens: tuple[int, ...]
    tensors: dict[str, np.ndarray]


class CacheArena:
    """Room for the caches of several conversations side by side, so that one pass can take tokens of all of them."""

    def __init__(self, slots: int, n_layers: int, shape: tuple[int, int, int], dtype: DType, device: str = "CPU"):
        """`shape` is that of a cache's tensors, (KvH, rows, Hd). Memory of the CPU is only taken as it is written.

        CacheError where the device has no buffers for slots of this size."""
        self.slots = slots
        self._fresh, self._used = list(range(slots))[::-1], list[int]()
        if device == "CPU":
            self._on_the_cpu(n_layers, shape, dtype)
            return
        tensors = [buffers.upload(np.zeros((slots, *shape), _NUMPY[dtype]), device) for _ in range(2 * n_layers)]
        parts = [part for tensor in tensors if (part := buffers.parts(tensor, device)) is not None]
        if len(parts) < len(tensors):
            raise CacheError(f"{device} has no buffers for parts of {math.prod(shape) * dtype.itemsize} bytes")
        self._parts = [list(slot) for slot in zip(*parts, strict=True)]
        self.layers = tuple(LayerCache(k, v) for k, v in zip(tensors[::2], tensors[1::2], strict=True))

    def _on_the_cpu(self, n_layers: int, shape: tuple[int, int, int], dtype: DType) -> None:
        slots = self.slots
        one = math.prod(shape) * dtype.itemsize
        memory_of_all = memory.Arena(2 * n_layers * (slots * one + memory.ALIGNMENT))
        wholes = [memory_of_all.take(slots * one) for _ in range(2 * n_layers)]
        self._parts = [[memory.as_tensor(whole[i * one : (i + 1) * one], "CPU", dtype, shape) for whole in wholes] for i in range(slots)]
        tensors = [memory.as_tensor(whole, "CPU", dtype, (slots, *shape)) for whole in wholes]
        self.layers = tuple(LayerCache(k, v) for k, v in zip(tensors[::2], tensors[1::2], strict=True))  # (slots, KvH, rows, Hd) each

    def take(self) -> tuple[int, list[Tensor]] | None:
        """A slot that no cache has, and its zeroed tensors; None where there is none left."""
        if self._fresh:
            slot = self._fresh.pop()
        elif self._used:
            slot = self._used.pop()
            for tensor in self._parts[slot]:
                buffers.write(tensor, np.zeros(tensor.shape, _NUMPY[tensor.dtype]))
        else:
            return None
        return slot, self._parts[slot]

    def give_back(self, slot: int) -> None:
        """Nothing refers to its cache any more."""
        self._used.append(slot)


@dataclass(frozen=True)
class AheadRow:
    """A token whose entries stand in a cache already, behind what it holds, and the row of the last pass that has the logits after it."""

    token: int
    row: int
    first: bool  # of its conversation's in that pass


class KVCache:
    """What the model has read: `tokens[i]` stands at position i, rows beyond len(tokens) hold nothing that counts."""

    def __init__(
        self,
        config: LlamaConfig,
        capacity: int,
        rows: int,
        dtype: DType,
        device: str,
        shifter: Shifter,
        identity: dict[str, str],
        arena: CacheArena | None = None,
    ):
        """`identity` names what made the entries (model, device, kernels …): a snapshot of another identity is foreign.

        Where `arena` has room the cache is a slot of it, else memory of its own."""
        self.capacity, self.identity = capacity, identity
        self.model: Transformer | None = None  # that fills it, where it is not the engine's own: adapters laid over it
        self.tokens: list[int] = []
        self.ahead: deque[AheadRow] = deque()  # what a pass over rows computed beyond `tokens`, and the engine has not taken yet
        self._shape, self._shifter = (config.n_kv_heads, rows, config.head_dim), shifter
        self.arena: CacheArena | None = None
        self.slot = -1
        if arena is not None and (taken := arena.take()) is not None:
            self.arena, (self.slot, tensors) = arena, taken
            weakref.finalize(self, arena.give_back, self.slot).atexit = False
        else:
            tensors = self._zeros(2 * config.n_layers, dtype, device)
        self.layers = tuple(LayerCache(k, v) for k, v in zip(tensors[::2], tensors[1::2], strict=True))
        self._lifted: list[Tensor] = []  # keys at position zero, float32; made at the first remove
        self._lifted_tokens = 0  # positions below this one have theirs
        self._mover: KeyRotation | None = None
        self._taken = (0, 0)  # positions whose memory was taken from the system, or is being taken, and of how many tensors

    def _zeros(self, n: int, dtype: DType, device: str) -> list[Tensor]:
        # zeros, because a masked score of uninitialised memory could still be a NaN
        if device == "CPU":  # in huge pages: a long context is read at the speed of memory
            arena = memory.Arena(n * (math.prod(self._shape) * dtype.itemsize + memory.ALIGNMENT))
            return [arena.zeros(*self._shape, dtype=dtype) for _ in range(n)]
        return [buffers.upload(np.zeros(self._shape, _NUMPY[dtype]), device) for _ in range(n)]

    @property
    def tensors(self) -> list[Tensor]:
        """Keys and values of every layer, in the order the engine's graphs take them."""
        return [t for layer in self.layers for t in (layer.k, layer.v)]

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes() for t in (*self.tensors, *self._lifted))

    def take_memory(self, positions: int, seconds: float) -> bool:
        """Take the memory of the first `positions` from the system, for about so many seconds; True once all of it is there.

        It is taken at the first write otherwise, nearly all of a slot's at once where pages are huge: 60 to 200 ms that a pass is late."""
        if not self._viewable:
            return True
        ends, positions = time.perf_counter() + seconds, min(positions, self._shape[1])
        wanted, done = self._taken if positions <= self._taken[0] else (positions, 0)
        tensors = self.tensors
        while done < len(tensors):
            for head in buffers.view(tensors[done]):
                pages.take(head[:wanted])
            done += 1
            self._taken = wanted, done
            if time.perf_counter() > ends:
                break
        return done == len(tensors)

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
        self.ahead.clear()
        self._lifted_tokens = min(self._lifted_tokens, n)

    def remove(self, start: int, stop: int) -> None:
        """Take positions start … stop - 1 out and move what follows down, nothing computed anew.

        CacheError, and an untouched cache, unless 0 <= start < stop <= len(tokens)."""
        held = len(self.tokens)
        if not 0 <= start < stop <= held:
            raise CacheError(f"remove({start}, {stop}) of a cache that holds {held} tokens")
        self.ahead.clear()
        if stop < held:
            mover = self._mover or self.prepare_remove()
            mover.lift(self._lifted_tokens, held)
            mover.move(stop, start, held - stop)
            self._lifted_tokens = held - (stop - start)
        else:
            self._lifted_tokens = min(self._lifted_tokens, start)
        del self.tokens[start:stop]

    def prepare_remove(self) -> KeyRotation:
        """Do now what the first remove would have to set up; what is held stays as it is."""
        if self._mover is None:
            self._lifted = self._zeros(len(self.layers), dtypes.float32, self.layers[0].k.device)
            self._mover = self._shifter.over([(layer.k, layer.v, lifted) for layer, lifted in zip(self.layers, self._lifted, strict=True)])
        return self._mover

    def entries(self, n: int) -> Entries:
        """A copy of the first n positions; CacheError unless 0 <= n <= len(tokens)."""
        if not 0 <= n <= len(self.tokens):
            raise CacheError(f"entries({n}) of a cache that holds {len(self.tokens)} tokens")
        if self._viewable:
            return Entries(tuple(self.tokens[:n]), {name: buffers.view(tensor)[:, :n].copy() for name, tensor in self._named()})
        whole = self._host_array()
        return Entries(tuple(self.tokens[:n]), {name: buffers.read(tensor, whole)[:, :n].copy() for name, tensor in self._named()})

    def fill(self, entries: Entries) -> None:
        """Replace what is held by entries of a cache of the same model on the same device."""
        for name, tensor in self._named():
            if self._viewable:
                buffers.view(tensor)[:, : len(entries.tokens)] = entries.tensors[name]
            else:
                whole = self._host_array()  # of its own: a driver may still be reading the last one
                whole[:, : len(entries.tokens)] = entries.tensors[name]
                buffers.write(tensor, whole)
        self.tokens, self._lifted_tokens = list(entries.tokens), 0
        self.ahead.clear()

    def snapshot(self, path: Path) -> None:
        """Write the held entries to a safetensors file that `restore` can vouch for; the file appears whole or not at all."""
        entries = self.entries(len(self.tokens))
        snapshot.save(path, self.identity, self.capacity, list(entries.tokens), entries.tensors)

    def restore(self, path: Path) -> None:
        """Replace what is held by a snapshot's entries; SnapshotError, and an untouched cache, for one that is damaged or foreign."""
        tokens, tensors = snapshot.load(path, self.identity, self.capacity, sum(tensor.nbytes() for tensor in self.tensors))
        n_kv_heads, _, head_dim = self._shape
        for name, tensor in self._named():
            stored = tensors.get(name)
            if stored is None or stored.shape != (n_kv_heads, len(tokens), head_dim) or stored.dtype != _NUMPY[tensor.dtype]:
                raise snapshot.SnapshotError(f"{path} lacks {name} in the shape of this cache")
        self.fill(Entries(tuple(tokens), tensors))

    @property
    def _viewable(self) -> bool:
        """Is this memory the host's? What wrote to it is done then: a pass ends before it returns there."""
        return self.layers[0].k.device == "CPU"

    def _named(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor with its name in a snapshot."""
        for i, layer in enumerate(self.layers):
            yield f"layers.{i}.k", layer.k
            yield f"layers.{i}.v", layer.v

    def _host_array(self) -> np.ndarray:
        return np.zeros(self._shape, _NUMPY[self.layers[0].k.dtype])
