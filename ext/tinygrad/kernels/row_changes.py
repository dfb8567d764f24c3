"""Changes that differ from row to row of a pass: y_t = W x_t + B_s (A_s x_t), s the set of adapters that row t goes through.

The product with the base is one for all rows, each row's low-rank part is its own (as in Punica, arXiv 2310.18547). What a kernel reads is
a table of addresses: a captured pass serves whichever sets there are, and nothing of an adapter is copied. Only the CPU's set reads it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tinygrad import Tensor, dtypes
from tinygrad.dtype import DType

from ext.tinygrad.buffers import upload, view
from ext.tinygrad.kernels.low_rank import AdaptedWeight
from ext.tinygrad.kernels.protocol import PackedWeight

MOST_ROWS = 16  # of such a pass: c/tile.h


@dataclass(frozen=True)
class RowAdaptedWeight:
    """A packed weight with a change for each of several sets, or none; which of them a row takes is said anew for each pass."""

    base: PackedWeight
    changes: tuple[AdaptedWeight | None, ...]  # by set: the table has their addresses, and this keeps them alive
    table: Tensor  # int64 (sets, 4): addresses of A, B and the gain (0: none), and the rank (0: no change)
    sets: Tensor  # int32 (MOST_ROWS,): the set of each row; -1: the base alone

    @classmethod
    def of(cls, base: PackedWeight, changes: Sequence[AdaptedWeight | None], sets: Tensor) -> "RowAdaptedWeight":
        """Each change is one over `base`, none of an embedding, and one at least is there."""
        lines = np.zeros((_power_of_two(len(changes), 4), 4), np.int64)  # sizes of few kinds: a captured pass serves all of one
        for line, change in zip(lines, changes):
            if change is not None:
                assert change.base is base and not change.embedding, "a change of another weight"
                gain = 0 if change.gain is None else view(change.gain).ctypes.data
                line[:] = view(change.a).ctypes.data, view(change.b).ctypes.data, gain, change.rank
        return cls(base, tuple(changes), upload(lines, "CPU"), sets)

    @property
    def rank(self) -> int:
        """Numbers that A x has room for: the largest rank, or more."""
        return _power_of_two(max(change.rank for change in self.changes if change is not None), 8)

    @property
    def dtype(self) -> DType:
        """Of A and B."""
        (dtype,) = {change.a.dtype for change in self.changes if change is not None}
        return dtypes.float16 if dtype == dtypes.float16 else dtypes.float32

    @property
    def shape(self) -> tuple[int, int]:
        return self.base.shape

    @property
    def nbytes(self) -> int:
        """Without the changes, which are counted where they are made."""
        return self.base.nbytes

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (*self.base.tensors, self.table, self.sets)

    @property
    def layout(self) -> tuple:
        return ("rows", self.base.layout, self.table.shape, self.rank, self.dtype)

    def to_tensor(self) -> Tensor:
        return self.base.to_tensor()


def _power_of_two(n: int, least: int) -> int:
    return max(least, 1 << (n - 1).bit_length())
