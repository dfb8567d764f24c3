"""The seam between a transformer and the device: a few operations, each one name for the model whatever serves it.

Shapes: T new tokens, D dim, F hidden_dim, V vocab, H query heads, KvH key/value heads, Hd head_dim. Activations are float32.
`start_pos` is the position of the first new token, an int or a bound Variable, or says of each token where it stands (RowPositions).
`rows` of a cache is a little more than its capacity, so that a padded prefill chunk never writes outside.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
from tinygrad import Tensor, UOp

from ext.tinygrad.kernels.matrix import QuantMatrix


class PackedWeight(Protocol):
    """A weight matrix in the layout its kernels read."""

    @property
    def shape(self) -> tuple[int, int]: ...  # (rows, cols), as the checkpoint has it
    @property
    def nbytes(self) -> int: ...  # on the device
    @property
    def tensors(self) -> tuple[Tensor, ...]: ...  # the buffers, in a fixed order
    @property
    def layout(self) -> tuple: ...  # weights of one layout may stand in for each other in a captured graph
    def to_tensor(self) -> Tensor: ...  # float32 (rows, cols)


W = TypeVar("W", bound=PackedWeight)  # a kernel set reads the weights that it packed


@dataclass(frozen=True)
class HeadTransform:
    """What a model does to queries, keys and values between their projection and RoPE. q, k and v lie side by side: H + 2 KvH heads."""

    bias: Tensor | None = None  # ((H + 2 KvH) * Hd,)
    norm: Tensor | None = None  # RMSNorm of queries and keys: weights, the queries' then the keys'
    per_head: bool = True  # (2 * Hd,): each head is normed; otherwise ((H + KvH) * Hd,): all heads of a token together
    eps: float = 0.0

    @property
    def tensors(self) -> list[Tensor]:
        return [t for t in (self.bias, self.norm) if t is not None]


@dataclass(frozen=True)
class Attention:
    """How scores are made of queries and keys."""

    scale: float = 0.0  # of their products; 0 stands for Hd ** -0.5
    window: int = 0  # a token sees itself and this many less one before it; 0: all
    softcap: float = 0.0  # scores become softcap * tanh(score / softcap); 0: they stay (Gemma 2, arXiv 2408.00118)

    def scale_of(self, head_dim: int) -> float:
        return self.scale or head_dim**-0.5


FULL_ATTENTION = Attention()


@dataclass(frozen=True)
class Routing:
    """Which experts of a mixture a token uses: the likeliest by a softmax over a router's products (arXiv 2401.04088)."""

    experts: int
    used: int
    normalize: bool  # shares of those that are used sum to 1


@dataclass(frozen=True)
class RowPositions:
    """Where each of T tokens stands, in place of one `start_pos`: tokens of several conversations, or several of one, in one pass.

    Caches are arenas then, (slots, KvH, rows, Hd), and a token sees the positions 0 … its own of its slot: what the pass stores at
    them counts. A token without a position is none: nothing is stored for it, and what comes of it is finite.
    """

    table: Tensor  # int32 (2, T): slots, then positions; -1: a row that is not used

    @property
    def slots(self) -> Tensor:
        return self.table[0]

    @property
    def positions(self) -> Tensor:
        return self.table[1]


Position: TypeAlias = int | UOp | RowPositions


class Kernels(Protocol[W]):
    """Fused operations of a decoder block."""

    name: str
    layout: str  # of its packed weights; sets of one layout read each other's, "" stands for none that could be kept
    changes_alike: bool  # a row that goes through an adapter is computed to the bit as alone, whichever others are in its pass
    changes_by_row: bool  # takes weights whose change is another for each row of a pass (row_changes.py)

    def row_sizes(self, head_dim: int) -> tuple[int, ...]:
        """Sizes of passes under RowPositions, rising, that compute for each row, to the last bit, what a pass of that row alone does.

        None where they are rounded otherwise, or would be slower than one pass after another."""

    def pack(self, matrix: QuantMatrix, device: str) -> W:
        """Lay a matrix out for this kernel set and put it on the device."""

    def embed(self, ids: Tensor, weight: W, scale: float = 1.0) -> Tensor:
        """(T,) int32 to the rows of the embedding times `scale`, (T, D)."""

    def norm_qkv(
        self,
        x: Tensor,  # (T, D)
        norm: Tensor | None,  # (D,); None: x is normed already
        eps: float,
        wq: W,  # (H * Hd, D)
        wk: W,  # (KvH * Hd, D)
        wv: W,
        rope: Tensor,  # (rows, Hd / 2, 2): cos and sin by position
        cache_k: Tensor,  # (KvH, rows, Hd), float16, float32 or 8-bit blocks (quantised_rows.py); (slots, …) under RowPositions
        cache_v: Tensor,
        start_pos: Position,
        heads: HeadTransform | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """RMSNorm, the three projections, RoPE on adjacent pairs; keys and values are stored at start_pos.

        -> q (T, H, Hd) and the caches after the store.
        """

    def attend(
        self,
        q: Tensor,
        cache_k: Tensor,
        cache_v: Tensor,
        start_pos: Position,
        attention: Attention = FULL_ATTENTION,
        then: W | None = None,
    ) -> Tensor:
        """Causal attention: token t sees positions 0 … start_pos + t. (T, H, Hd) -> (T, H * Hd), in a form that linear_residual takes.

        `then` is the only weight that the result will be multiplied with, if that is known: the form may be one that only it takes."""

    def linear_residual(
        self, x: Tensor, weight: W, residual: Tensor, out: Tensor | None = None, bias: Tensor | None = None, scale: float = 1.0
    ) -> Tensor:
        """residual + scale * (x @ weight.T + bias): (T, K) and (T, D) -> (T, D). x is float32, or what attend and norm_gated gave.

        The result overwrites `out`, a realized float32 (T, D) that is neither x nor residual; without it, it gets a buffer of its own."""

    def norm_gated(
        self,
        x: Tensor,
        norm: Tensor | None,
        eps: float,
        w_gate: W,
        w_up: W,
        activation: str = "silu",
        bias: Tensor | None = None,
        then: W | None = None,
    ) -> Tensor:
        """RMSNorm, then a gated unit (arXiv 2002.05202), activation(gate) * up: (T, D) -> (T, F), in a form that linear_residual takes.

        `activation` is one of ACTIVATIONS; `bias` (2 F,) is the gate's, then the other's; `then` is as attend's."""

    def norm_linear(self, x: Tensor, norm: Tensor | None, eps: float, weight: W, scale: float = 1.0, softcap: float = 0.0) -> Tensor:
        """RMSNorm, then a product: (T, D) -> (T, V), times `scale`, then capped as scores are. x is as linear_residual's without a norm."""

    def experts_residual(
        self,
        x: Tensor,  # (T, D)
        norm: Tensor | None,
        eps: float,
        router: W,  # (E, D)
        w_gate: W,  # (E * F, D), expert by expert
        w_up: W,
        w_down: W,  # (E * D, F)
        routing: Routing,
        residual: Tensor,
        out: Tensor | None = None,
        activation: str = "silu",
    ) -> Tensor:
        """A mixture of experts in place of norm_gated and linear_residual: (T, D) -> (T, D). Only the experts that are used are read."""

    def norm_residual(self, x: Tensor, norm: Tensor, eps: float, residual: Tensor, out: Tensor | None = None) -> Tensor:
        """residual + RMSNorm(x): (T, D) each; `out` as linear_residual's."""

    def layer_norm(self, x: Tensor, norm: Tensor, bias: Tensor | None, eps: float) -> Tensor:
        """LayerNorm (arXiv 1607.06450): (T, D) -> (T, D)."""


ACTIVATIONS = ("silu", "gelu")  # GELU by its tanh approximation (arXiv 1606.08415)


@runtime_checkable
class Ranking(Protocol):
    """A kernel set that can find the largest logits on its device, so that a token costs one small copy."""

    @property
    def most_largest(self) -> int:
        """How many `largest` finds; 0 where it is of no use."""

    def largest(self, logits: Tensor) -> Tensor:
        """The largest of all, falling, of equal ones the first: int32 (2, most_largest), their indices and their float32 bits.

        NaN is never among them; where there are fewer, the other indices are -1."""


@dataclass(frozen=True)
class OneTokenProduct:
    """A product that every decode step makes, once a layer: for a kernel set that measures what suits it."""

    name: str  # "qkv", "gated" or "linear"
    norm: bool
    weights: tuple[tuple[Any, ...], ...]  # by layer: the packed weights that are multiplied with one input
    head_dim: int = 0  # of qkv
    blocks: bool = False  # of qkv: keys and values are kept as 8-bit blocks
    eps: float = 0.0  # of the norm


@runtime_checkable
class Tunable(Protocol):
    """A kernel set that can measure how to launch its products."""

    def tune(self, products: Sequence[OneTokenProduct], seconds: float | None = None) -> None:
        """Measure for so many seconds at most (None: as long as it takes); products change in speed, and in the order of their sums."""


def rope_table(rows: int, head_dim: int, rope_dim: int, theta: float, factors: Sequence[float] = (), scale: float = 1.0) -> np.ndarray:
    """cos and sin of position times frequency, float32 (rows, Hd / 2, 2); RoFormer (arXiv 2104.09864), computed in float64.

    Only the first rope_dim entries of a head turn; the others have an angle of zero, so kernels need not know of them. A model
    that stretches its context divides each of the rope_dim / 2 frequencies by a factor of its own; `scale` multiplies the entries
    that turn (YaRN).
    """
    half = rope_dim // 2
    frequencies = np.zeros(head_dim // 2)
    frequencies[:half] = theta ** (-np.arange(0, rope_dim, 2, dtype=np.float64) / rope_dim)
    if len(factors):
        frequencies[:half] /= np.asarray(factors, np.float64)
    angles = np.outer(np.arange(rows, dtype=np.float64), frequencies)  # (rows, Hd / 2)
    table = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    if scale != 1:
        table[:, :half] *= scale
    return table.astype(np.float32)
