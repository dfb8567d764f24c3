"""Low-rank changes of packed weights: y = gain * (x Wᵀ) + (x Aᵀ) Bᵀ. LoRA (arXiv 2106.09685), and with a gain DoRA (arXiv 2402.09353).

An `AdaptedWeight` stands wherever an operation of the seam takes a weight. Several changes of one weight are one: their ranks add up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
from tinygrad import Tensor, dtypes
from tinygrad.uop.ops import Ops

from ext.tinygrad.buffers import upload
from ext.tinygrad.kernels.packed.formats import GROUP
from ext.tinygrad.kernels.packed.packed_matrix import PackedMatrix
from ext.tinygrad.kernels.protocol import PackedWeight

RANKS = 4  # a rank is filled up with zeros to a multiple of it: fewer kernels to compile


class _Multiplies(Protocol):
    """A weight of the reference set."""

    def matmul(self, x: Tensor) -> Tensor: ...
    def rows_at(self, ids: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class AdaptedWeight:
    """A packed weight (rows, cols) with a change of rank r; every buffer is on its device."""

    base: PackedWeight
    a: Tensor  # (r, cols), float16 or float32; of an embedding (rows, r)
    b: Tensor  # (rows / GROUP, r, GROUP), as packed weights have their rows; of an embedding (r, cols)
    gain: Tensor | None = None  # (rows,) float32; of an embedding (cols,)
    embedding: bool = False  # rows are looked up: W[i] * gain + A[i] B

    @classmethod
    def of(
        cls, base: PackedWeight, changes: Sequence[tuple[np.ndarray, np.ndarray]], gain: np.ndarray | None, device: str, exact: bool
    ) -> "AdaptedWeight":
        """From A (r, cols) and B (rows, r) of each change, float32; `exact` keeps them so, else they become float16."""
        a, b = _joined(changes)
        dtype = np.float32 if exact else np.float16
        rank, groups = len(a), -(-len(b) // GROUP)
        padded = np.zeros((groups * GROUP, rank), np.float32)
        padded[: len(b)] = b
        tiles = padded.reshape(groups, GROUP, rank).transpose(0, 2, 1)
        return cls(base, _put(a, dtype, device), _put(tiles, dtype, device), None if gain is None else _put(gain, np.float32, device))

    @classmethod
    def of_embedding(
        cls, base: PackedWeight, changes: Sequence[tuple[np.ndarray, np.ndarray]], gain: np.ndarray | None, device: str, exact: bool
    ) -> "AdaptedWeight":
        """From A (r, rows) and B (cols, r) of each change."""
        a, b = _joined(changes)
        dtype = np.float32 if exact else np.float16
        put = None if gain is None else _put(gain, np.float32, device)
        return cls(base, _put(a.T, dtype, device), _put(b.T, dtype, device), put, True)

    @property
    def rank(self) -> int:
        return int(self.a.shape[1 if self.embedding else 0])

    @property
    def shape(self) -> tuple[int, int]:
        return self.base.shape

    @property
    def nbytes(self) -> int:
        return self.base.nbytes + sum(int(t.nbytes()) for t in self.own)

    @property
    def own(self) -> tuple[Tensor, ...]:
        """The buffers of the change alone."""
        return (self.a, self.b) if self.gain is None else (self.a, self.b, self.gain)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (*self.base.tensors, *self.own)

    @property
    def layout(self) -> tuple:
        return ("adapted", self.base.layout, self.a.shape, self.a.dtype, self.gain is not None)

    def to_tensor(self) -> Tensor:
        base = self.base.to_tensor()
        change = self.a.cast(dtypes.float32) @ self._b() if self.embedding else (self._b().T @ self.a.cast(dtypes.float32))
        if self.gain is None:
            return base + change
        return base * (self.gain if self.embedding else self.gain.unsqueeze(1)) + change

    def _b(self) -> Tensor:
        """(r, rows), or (r, cols) of an embedding, float32."""
        if self.embedding:
            return self.b.cast(dtypes.float32)
        groups, rank, group = self.b.shape
        return self.b.cast(dtypes.float32).permute(1, 0, 2).reshape(rank, groups * group)[:, : self.shape[0]]

    def changed(self, product: Tensor, x: Tensor) -> Tensor:
        """x (T, cols) and its product with the base, (T, rows), to that with the change."""
        narrow = (x @ self.a.cast(dtypes.float32).T).contiguous()  # (T, r)
        return (product if self.gain is None else product * self.gain) + narrow @ self._b()

    def matmul(self, x: Tensor) -> Tensor:
        """x @ weight.T over weights of the reference set: (T, cols) -> (T, rows)."""
        x = x.contiguous()
        return self.changed(cast(_Multiplies, self.base).matmul(x), x)

    def changed_rows(self, rows: Tensor, ids: Tensor) -> Tensor:
        """The base's rows (T, cols) at ids (T,) to those of the embedding with the change."""
        return (rows if self.gain is None else rows * self.gain) + self.a[ids].cast(dtypes.float32).contiguous() @ self._b()

    def rows_at(self, ids: Tensor) -> Tensor:
        return self.changed_rows(cast(_Multiplies, self.base).rows_at(ids), ids)


def _joined(changes: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """One A (r, in) and B (out, r) for all, r filled up, each pair of a row and a column evenly large: float16 holds them better then."""
    a = np.concatenate([a for a, _ in changes]).astype(np.float32)
    b = np.concatenate([b for _, b in changes], axis=1).astype(np.float32)
    large = np.abs(a).max(1, initial=0), np.abs(b).max(0, initial=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        power = np.rint(np.log2(large[1] / large[0]) / 2)
    power = np.where(np.isfinite(power), power, 0).astype(np.int32)  # of two: nothing is rounded
    a, b = np.ldexp(a, power[:, None]), np.ldexp(b, -power)
    more = -len(a) % RANKS
    return np.pad(a, ((0, more), (0, 0))), np.pad(b, ((0, 0), (0, more)))


def _put(values: np.ndarray, dtype: type[np.generic], device: str) -> Tensor:
    return upload(np.ascontiguousarray(values, dtype), device)


def packed(weight: PackedWeight) -> PackedMatrix:
    """The weight without its change, of a set whose weights are packed matrices."""
    return cast(PackedMatrix, getattr(weight, "base", weight))


def reads(x: Tensor, out: Tensor) -> bool:
    """Does generated code that x comes from read the buffer of `out`? Launches only have it as an operand."""
    return any(out.uop in u.src for u in x.uop.toposort() if u.op not in (Ops.CALL, Ops.AFTER))
