"""The seam of training: gradients of a decoder block's operations, with the base's weights as they are packed.

Shapes as in protocol.py; r is an adapter's rank. A row of T tokens holds one or several samples: `first` says, for each token, where
its sample begins, `positions` how far into the sample it is. T is a multiple of ROW_TOKENS. An adapter of a product is `down` (r, K) and
`up` (r, N), which is peft's A and the transpose of its B; all adapters of a layer lie in one flat buffer, their gradients in another of
that shape. Gradients are added to what is there.
"""

from dataclasses import dataclass
from typing import Protocol, TypeVar

from tinygrad import Tensor

from ext.tinygrad.kernels.protocol import PackedWeight

ROW_TOKENS = 32  # what the length of a row is a multiple of

W = TypeVar("W", bound=PackedWeight, contravariant=True)


@dataclass(frozen=True)
class Dropout:
    """Dropout of an adapter's input. What stays follows from two uint32 buffers of one entry and the adapter's number in its layer."""

    rate: float
    seed: Tensor  # of this pass
    layer: Tensor
    slot: int


@dataclass(frozen=True)
class AdapterPlace:
    """Where an adapter's two matrices lie in the flat buffer of its layer, counted in floats."""

    rank: int
    down: int  # (rank, cols)
    up: int  # (rank, rows)
    scale: float  # alpha / rank, or alpha / sqrt(rank)


class TrainingKernels(Protocol[W]):
    """What training needs beside `Kernels`; results that a docstring calls in place are in the buffer that was handed in."""

    name: str

    def linear(self, x: Tensor, weight: W, out: Tensor | None = None, residual: Tensor | None = None) -> Tensor:
        """x @ weight.T, added to `residual`: float32 (T, K) -> (T, N), as `Kernels` computes it, in a buffer of its own or in `out`."""

    def linear_backward(self, dy: Tensor, weight: W, into: Tensor | None = None) -> Tensor:
        """dy @ weight: (T, N) -> (T, K), the transposed product over the same packed weight; added to `into` in place."""

    def low_rank(
        self, x: Tensor, params: Tensor, adapter: AdapterPlace, y: Tensor, low: Tensor, dropout: Dropout | None
    ) -> tuple[Tensor, Tensor]:
        """low = scale * dropout(x) @ down.T, y += low @ up: (T, K), (T, N), (T, r) -> y and low, in place."""

    def low_rank_backward(
        self, dy: Tensor, params: Tensor, adapter: AdapterPlace, dx: Tensor, dropout: Dropout | None
    ) -> tuple[Tensor, Tensor]:
        """dlow = scale * dy @ up.T, dx += dropout(dlow @ down): -> dx in place, and dlow (T, r)."""

    def outer(self, low: Tensor, x: Tensor, gradient: Tensor, at: int, dropout: Dropout | None = None) -> Tensor:
        """gradient[at:] (r, K) += low.T @ dropout(x), in place."""

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """RMSNorm: (T, D) -> (T, D)."""

    def norm_backward(
        self, dy: Tensor, x: Tensor, weight: Tensor, eps: float, residual: Tensor | None, out: Tensor | None = None
    ) -> Tensor:
        """residual + the gradient of RMSNorm at x: (T, D) each, in a buffer of its own or in `out`."""

    def turn(self, q: Tensor, k: Tensor, positions: Tensor, rope: Tensor) -> tuple[Tensor, Tensor]:
        """RoPE on adjacent pairs, in place: q (T, H, Hd), k (T, KvH, Hd)."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, first: Tensor, scale: float, out: Tensor, stats: Tensor) -> tuple[Tensor, Tensor]:
        """Token t attends to first[t] … t: -> out (T, H, Hd), and what attend_backward wants to know (T, H, 2), in place."""

    def attend_backward(
        self,
        dout: Tensor,
        out: Tensor,
        stats: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        first: Tensor,
        positions: Tensor,
        rope: Tensor,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of what was turned into q and k, and of v: (T, H * Hd), (T, KvH * Hd), (T, KvH * Hd)."""

    def gated(self, gate: Tensor, up: Tensor, activation: str = "silu") -> Tensor:
        """activation(gate) * up; `activation` is one of ACTIVATIONS."""

    def gated_backward(self, dh: Tensor, gate: Tensor, up: Tensor, activation: str = "silu") -> tuple[Tensor, Tensor]: ...

    def rows(self, x: Tensor, ids: Tensor) -> Tensor:
        """x[ids]: (T, D), (n,) int32 -> (n, D)."""

    def add_rows(self, x: Tensor, ids: Tensor, out: Tensor) -> Tensor:
        """out[ids] += x, in place."""

    def cross_entropy(self, logits: Tensor, targets: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, V) become, in place, the gradient of sum(shares * -log softmax(logits)[targets]); the second result, (n, 3), gives the
        losses: log(second) + first - third."""
