"""Keys moved to other positions: RoPE turned back, and on to where they come to stand, a chunk of positions at a time."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tinygrad import Tensor, TinyJit, UOp

from ext.tinygrad.graph.compose import compose
from ext.tinygrad.kernels.quantised_rows import floats_of
from ext.tinygrad.kernels.reference import rotate, store

CHUNK = 128  # positions a pass moves; no more than the rows a cache has beyond its capacity


def _rows(tensor: Tensor, start: UOp) -> Tensor:
    """CHUNK positions of (KvH, rows, …), position first: (CHUNK, KvH, …), as they are.

    In a buffer of its own, so that source and target may overlap.
    """
    return tensor[:, start : start + CHUNK].transpose(0, 1).contiguous()


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
            return [store(lifted, rotate(floats_of(_rows(k, start)), back), start)]

        def move(k: Tensor, v: Tensor, lifted: Tensor, rope: Tensor, source: UOp, target: UOp) -> list[Tensor]:
            keys, values = _rows(lifted, source), _rows(v, source)
            turned = rotate(keys, rope[target : target + CHUNK])
            return [store(lifted, keys, target), store(k, turned, target), store(v, values, target)]

        self._lift = _LayerGraph(lift, ("start",), rows)
        self._move = _LayerGraph(move, ("source", "target"), rows)

    def over(self, layers: Sequence[tuple[Tensor, Tensor, Tensor]], which: Sequence[int]) -> KeyRotation:
        """For a cache of these (k, v, lifted), of the layers that `which` has: (KvH, rows, …) each, lifted in float32.

        What the cache holds is left as it is."""
        ropes = [self.ropes[layer] for layer in which]
        # the last rows are there for padding only and hold nothing that counts
        unused = self.rows - CHUNK
        return KeyRotation(
            self._lift.over([(k, lifted, rope) for (k, _, lifted), rope in zip(layers, ropes, strict=True)], unused),
            self._move.over([(k, v, lifted, rope) for (k, v, lifted), rope in zip(layers, ropes, strict=True)], unused, unused),
        )
