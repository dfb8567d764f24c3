"""Keys and values of one conversation: a fixed capacity, a position, and the ids that stand at each.

A key at position p was turned by RoPE through p times its frequencies; at another position it must be turned through another angle.
Turning a stored float16 key again and again would add a rounding each time, so the first shift turns a key back to position zero and
keeps that copy in float32 beside the cache; every shift turns the copy. Errors stay at two roundings however often a key moves, and a
conversation that never shifts keeps no copy.

A cache of 8-bit blocks (ext/tinygrad/kernels/quantised_rows.py) has rows of bytes in place of floats; all that copies, keeps or gives back
rows takes them as they are.
"""

import math
import time
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tinygrad import Tensor, dtypes
from tinygrad.dtype import DType

from app.models.llama import snapshot
from app.models.llama.config import LlamaConfig
from app.models.llama.key_shift import CHUNK, KeyRotation, Shifter
from app.models.llama.window_rows import BEGINNING, NO_GAP, Gap, WindowRows, longest, most_rows
from ext.tinygrad import buffers, pages
from ext.tinygrad.kernels.packed import memory
from ext.tinygrad.kernels.quantised_rows import QUANTISED, row_elements

if TYPE_CHECKING:
    from app.models.llama.transformer import Transformer

GAP = "gap"  # of a snapshot's tensors
_NUMPY = {dtypes.float16: np.float16, dtypes.float32: np.float32, QUANTISED: np.uint8}


class CacheError(ValueError):
    """A cache operation outside of what the cache holds; the cache is as it was."""


@dataclass(frozen=True)
class LayerCache:
    """One layer's keys and values, (KvH, rows, Hd) each, or rows of bytes in a cache of 8-bit blocks; keys are stored rotated."""

    k: Tensor
    v: Tensor


@dataclass(frozen=True)
class Entries:
    """Keys and values in host memory: what `tokens` left in a cache, its rows (KvH, len(tokens), …) by the tensors' names.

    Those of layers with a window lack the positions of `gap`."""

    tokens: tuple[int, ...]
    tensors: dict[str, np.ndarray]
    gap: Gap = NO_GAP


class CacheArena:
    """Room for the caches of several conversations side by side, so that one pass can take tokens of all of them."""

    def __init__(
        self,
        slots: int,
        n_layers: int,
        shape: tuple[int, int, int],
        dtype: DType,
        device: str = "CPU",
        windows: Sequence[int] = (),
    ):
        """`shape` is that of a cache, (KvH, rows, Hd), of which `dtype` makes its tensors'; `windows` of its layers. Memory of the CPU is
        only taken as it is written.

        CacheError where the device has no buffers for slots of this size."""
        self.slots, shape = slots, (*shape[:2], row_elements(shape[2], dtype))
        self._fresh, self._used = list(range(slots))[::-1], list[int]()
        if device == "CPU":
            wholes, one = _allocated(slots, shape, dtype, tuple(windows) or (0,) * n_layers, 2), math.prod(shape) * dtype.itemsize
            self._parts = [
                [memory.as_tensor(whole[i * one : (i + 1) * one], "CPU", dtype, shape) for whole in wholes] for i in range(slots)
            ]
            tensors = [memory.as_tensor(whole, "CPU", dtype, (slots, *shape)) for whole in wholes]
            self.layers = tuple(LayerCache(k, v) for k, v in zip(tensors[::2], tensors[1::2], strict=True))
            return  # (slots, KvH, rows, Hd) each
        tensors = [buffers.upload(np.zeros((slots, *shape), _NUMPY[dtype]), device) for _ in range(2 * n_layers)]
        parts = [part for tensor in tensors if (part := buffers.parts(tensor, device)) is not None]
        if len(parts) < len(tensors):
            raise CacheError(f"{device} has no buffers for parts of {math.prod(shape) * dtype.itemsize} bytes")
        self._parts = [list(slot) for slot in zip(*parts, strict=True)]
        self.layers = tuple(LayerCache(k, v) for k, v in zip(tensors[::2], tensors[1::2], strict=True))

    def take(self) -> tuple[int, list[Tensor]] | None:
        """A slot that no cache has, and its zeroed tensors; None where there is none left."""
        if self._fresh:
            slot = self._fresh.pop()
        elif self._used:
            slot = self._used.pop()
            for tensor in self._parts[slot]:
                if tensor.device == "CPU":
                    memory.clear(buffers.view(tensor))
                else:
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
        windows: Sequence[int] = (),
    ):
        """`identity` names what made the entries (model, device, kernels …): a snapshot of another identity is foreign.

        Where `arena` has room the cache is a slot of it, else memory of its own. `windows`: how far each layer sees, 0 for all of it."""
        self.capacity, self.identity = capacity, identity
        self._windows = tuple(windows) or (0,) * config.n_layers
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
            tensors = self._zeros(2, dtype, device)
        self.layers = tuple(LayerCache(k, v) for k, v in zip(tensors[::2], tensors[1::2], strict=True))
        self._few = WindowRows(window, self._windowed(tensors)) if (window := longest(self._windows, device)) else None
        self._lifted: list[Tensor] = []  # keys at position zero, float32; made at the first remove
        self._lifted_tokens = 0  # positions below this one have theirs
        self._movers: list[tuple[KeyRotation, bool]] = []  # of layers without a window, and of those with one
        self._taken = (0, 0)  # positions whose memory was taken from the system, or is being taken, and of how many tensors

    def _zeros(self, each: int, dtype: DType, device: str) -> list[Tensor]:
        """So many tensors of each layer, layer by layer."""
        # zeros, because a masked score of uninitialised memory could still be a NaN
        heads, rows, head_dim = self._shape
        shape = (heads, rows, row_elements(head_dim, dtype))
        if device == "CPU":
            arrays = _allocated(1, shape, dtype, self._windows, each)
            return [memory.as_tensor(array, device, dtype, shape) for array in arrays]
        return [buffers.upload(np.zeros(shape, _NUMPY[dtype]), device) for _ in range(each * len(self._windows))]

    def _windowed(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Of tensors layer by layer those of layers with a window."""
        each = len(tensors) // len(self._windows)
        return [tensor for i, tensor in enumerate(tensors) if self._windows[i // each]]

    @property
    def tensors(self) -> list[Tensor]:
        """Keys and values of every layer, in the order the engine's graphs take them."""
        return [t for layer in self.layers for t in (layer.k, layer.v)]

    @property
    def nbytes(self) -> int:
        """That it takes once it is full."""
        tensors = [*zip(self.tensors, (w for w in self._windows for _ in "kv")), *zip(self._lifted, self._windows)]
        return sum(self._nbytes(tensor, window) for tensor, window in tensors)

    def _nbytes(self, tensor: Tensor, window: int) -> int:
        heads, rows, elements = tensor.shape
        row = elements * tensor.dtype.itemsize  # of one head
        return heads * row * (most_rows(rows, self._few.window, row) if window and self._few else rows)

    def reachable(self, n: int) -> int:
        """How many of the first n positions can be gone on from: n, unless layers with a window gave back what the next token sees."""
        return n if self._few is None else self._few.reachable(n)

    def extend(self, ids: Sequence[int]) -> None:
        """A pass wrote the entries of these ids behind what is held."""
        self.tokens += ids
        if self._few is not None:
            self._few.grown(len(self.tokens))

    def take_memory(self, positions: int, seconds: float) -> bool:
        """Take the memory of the first `positions` from the system, for about so many seconds; True once all of it is there.

        It is taken at the first write otherwise, nearly all of a slot's at once where pages are huge: 60 to 200 ms that a pass is late."""
        if not self._viewable:
            return True
        ends, positions = time.perf_counter() + seconds, min(positions, self._shape[1])
        wanted, done = self._taken if positions <= self._taken[0] else (positions, 0)
        tensors = self.tensors
        while done < len(tensors):
            # of a layer with a window only what is never given back: the rest is taken in small pages, as it is written
            rows = min(wanted, BEGINNING) if self._few is not None and self._windows[done // 2] else wanted
            for head in buffers.view(tensors[done]):
                pages.take(head[:rows])
            done += 1
            self._taken = wanted, done
            if time.perf_counter() > ends:
                break
        return done == len(tensors)

    def common_prefix(self, ids: list[int]) -> int:
        """How many of `ids`, from the first on, are already held, and can be gone on from."""
        held = np.array(self.tokens[: len(ids)], np.int64)
        differs = np.flatnonzero(held != np.array(ids[: len(held)], np.int64))
        return self.reachable(int(differs[0]) if len(differs) else len(held))

    def truncate(self, n: int) -> None:
        """Forget every position from n on; CacheError unless 0 <= n <= len(tokens) and n is reachable."""
        self._check_reachable("truncate", n)
        del self.tokens[n:]
        if self._few is not None:
            self._few.truncated(n)
        self.ahead.clear()
        self._lifted_tokens = min(self._lifted_tokens, n)

    def remove(self, start: int, stop: int) -> None:
        """Take positions start … stop - 1 out and move what follows down, nothing computed anew.

        Where layers with a window no longer hold what stands in front of them then, all is forgotten up to where it can be gone on from.
        CacheError, and an untouched cache, unless 0 <= start < stop <= len(tokens)."""
        held = len(self.tokens)
        if not 0 <= start < stop <= held:
            raise CacheError(f"remove({start}, {stop}) of a cache that holds {held} tokens")
        self.ahead.clear()
        if stop < held:
            for mover, few in self._movers or self.prepare_remove():
                stretches = self._few.stretches if few and self._few else _whole
                for first, last in stretches(self._lifted_tokens, held, CHUNK):
                    mover.lift(first, last)
                for first, last in stretches(stop, held, CHUNK):
                    mover.move(first, first - (stop - start), last - first)
            self._lifted_tokens = held - (stop - start)
        else:
            self._lifted_tokens = min(self._lifted_tokens, start)
        del self.tokens[start:stop]
        if self._few is not None:
            self._few.removed(start, stop)
            self.truncate(self.reachable(len(self.tokens)))

    def prepare_remove(self) -> list[tuple[KeyRotation, bool]]:
        """Do now what the first remove would have to set up; what is held stays as it is."""
        if not self._movers:
            self._lifted = self._zeros(1, dtypes.float32, self.layers[0].k.device)
            layers = [(layer.k, layer.v, lifted) for layer, lifted in zip(self.layers, self._lifted, strict=True)]
            for few in (False, True):
                if which := [i for i, window in enumerate(self._windows) if few == (bool(window) and self._few is not None)]:
                    self._movers.append((self._shifter.over([layers[i] for i in which], which), few))
            if self._few is not None:
                self._few.also(self._windowed(self._lifted))
        return self._movers

    def entries(self, n: int) -> Entries:
        """A copy of the first n positions; CacheError unless 0 <= n <= len(tokens) and n is reachable."""
        self._check_reachable("entries", n)
        whole, tensors = None if self._viewable else self._host_array(), {}
        for name, tensor, few in self._named():
            array = buffers.view(tensor) if whole is None else buffers.read(tensor, whole)
            tensors[name] = np.concatenate([array[:, rows] for rows in self._rows(n, few)], axis=1)
        return Entries(tuple(self.tokens[:n]), tensors, self._few.gap_of(n) if self._few else NO_GAP)

    def _rows(self, n: int, few: bool) -> list[slice]:
        """Those of the first n that a layer holds."""
        return self._few.held(n) if few and self._few is not None else [slice(0, n)]

    def _check_reachable(self, operation: str, n: int) -> None:
        if not 0 <= n <= len(self.tokens):
            raise CacheError(f"{operation}({n}) of a cache that holds {len(self.tokens)} tokens")
        if self.reachable(n) != n:
            raise CacheError(f"{operation}({n}) of a cache whose layers with a window can only be gone on from up to {self.reachable(n)}")

    def fill(self, entries: Entries) -> None:
        """Replace what is held by entries of a cache of the same model on the same device."""
        if self._few is not None:
            self._few.filled(entries.gap)
        for name, tensor, few in self._named():
            array, done = buffers.view(tensor) if self._viewable else self._host_array(), 0
            for rows in self._rows(len(entries.tokens), few):
                count = rows.stop - rows.start
                array[:, rows] = entries.tensors[name][:, done : done + count]
                done += count
            if not self._viewable:
                buffers.write(tensor, array)  # an array of its own: a driver may still be reading the last one
        self.tokens, self._lifted_tokens = list(entries.tokens), 0
        self.ahead.clear()

    def snapshot(self, path: Path) -> None:
        """Write the held entries to a safetensors file that `restore` can vouch for; the file appears whole or not at all."""
        entries = self.entries(len(self.tokens))
        snapshot.save(path, self.identity, self.capacity, list(entries.tokens), entries.tensors | {GAP: np.array(entries.gap, np.int32)})

    def restore(self, path: Path) -> None:
        """Replace what is held by a snapshot's entries; SnapshotError, and an untouched cache, for one that is damaged or foreign."""
        tokens, tensors = snapshot.load(path, self.identity, self.capacity, sum(tensor.nbytes() for tensor in self.tensors))
        gap = _gap_of(tensors.pop(GAP, None))
        if gap is None or (gap != NO_GAP and (self._few is None or not self._few.leaves(gap, len(tokens)))):
            raise snapshot.SnapshotError(f"{path} lacks positions that this cache needs")
        for name, tensor, few in self._named():
            stored, held = tensors.get(name), len(tokens) - (gap[1] - gap[0] if few else 0)
            if stored is None or stored.shape != (tensor.shape[0], held, tensor.shape[2]) or stored.dtype != _NUMPY[tensor.dtype]:
                raise snapshot.SnapshotError(f"{path} lacks {name} in the shape of this cache")
        self.fill(Entries(tuple(tokens), tensors, gap))

    @property
    def _viewable(self) -> bool:
        """Is this memory the host's? What wrote to it is done then: a pass ends before it returns there."""
        return self.layers[0].k.device == "CPU"

    def _named(self) -> Iterator[tuple[str, Tensor, bool]]:
        """Every tensor with its name in a snapshot; has its layer a window?"""
        for i, layer in enumerate(self.layers):
            yield f"layers.{i}.k", layer.k, bool(self._windows[i])
            yield f"layers.{i}.v", layer.v, bool(self._windows[i])

    def _host_array(self) -> np.ndarray:
        one = self.layers[0].k
        return np.zeros(one.shape, _NUMPY[one.dtype])


def _gap_of(stored: np.ndarray | None) -> Gap | None:
    """None for what is no gap; snapshots from before there were any have none."""
    if stored is None:
        return NO_GAP
    return (int(stored[0]), int(stored[1])) if stored.shape == (2,) and stored.dtype == np.int32 else None


def _whole(first: int, last: int, apart: int) -> list[tuple[int, int]]:
    return [(first, last)]


def _allocated(count: int, shape: tuple[int, int, int], dtype: DType, windows: Sequence[int], each: int) -> list[np.ndarray]:
    """Zeroed memory of the CPU, `each` stretches for a layer with `count` tensors side by side: in huge pages, where a long context is
    read at the speed of memory, but for layers with a window, of which parts are given back."""
    one = count * math.prod(shape) * dtype.itemsize
    arenas = {
        few: memory.Arena(sum(few == bool(window) for window in windows) * each * (one + memory.ALIGNMENT), huge=not few)
        for few in {bool(window) for window in windows}
    }
    return [arenas[bool(window)].take(one) for window in windows for _ in range(each)]
