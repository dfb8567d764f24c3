"""A mixture of experts on a GPU: pairs of a token and an expert, sorted by expert, go through the products of few tokens.

So each expert that is used is read once for every few of its tokens, and one that none uses is not read.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tinygrad import Tensor, dtypes

from ext.tinygrad.kernels.gpu.gpu_source import decode_source, launch, plain_source
from ext.tinygrad.kernels.gpu.operands import activations, floats
from ext.tinygrad.kernels.packed.formats import GROUP
from ext.tinygrad.kernels.packed.packed_matrix import PackedMatrix
from ext.tinygrad.kernels.protocol import Routing

if TYPE_CHECKING:
    from ext.tinygrad.kernels.gpu.gpu_kernels import GPUKernels

TILE = 8  # places of one expert side by side where there are several tokens


class Mixture:
    """The launches of one mixture over T tokens of `cols` columns; experts have `hidden` rows."""

    def __init__(self, kernels: "GPUKernels", routing: Routing, T: int, cols: int, hidden: int):
        assert hidden % GROUP == 0 and cols % GROUP == 0, "experts would share a group of rows"
        self.kernels, self.routing, self.T, self.cols, self.hidden = kernels, routing, T, cols, hidden
        self.tile = 1 if T == 1 else TILE
        pairs = T * routing.used
        # every expert may leave a tile that is not full
        self.places = pairs if self.tile == 1 else -(-(pairs + min(routing.experts, pairs) * (TILE - 1)) // TILE) * TILE
        self.items = kernels.tuning.plain_items

    def route(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The router's logits (T, E) to shares, rows, experts and places: see c/route.c."""
        pairs, routing = self.T * self.routing.used, self.routing
        macros = {"TOKENS": self.T, "EXPERTS": routing.experts, "USED": routing.used, "NORMALIZE": int(routing.normalize)}
        macros |= {"TILE": self.tile, "PLACES": self.places, "ITEMS": self.items}
        integers = [Tensor.empty(n, dtype=dtypes.int32, device=logits.device) for n in (self.places, self.places // self.tile, pairs)]
        source = plain_source(self.kernels.tuning, "route.c", "route", macros)
        shares, rows, experts, places = launch(source, "route", [1], self.items, [floats(logits, pairs), *integers], [logits])
        return shares, rows, experts, places

    def gathered(self, x: Tensor, norm: Tensor | None, eps: float, rows: Tensor) -> Tensor:
        """The activations of each place's token, normed where there is a norm."""
        macros = {"COLS": self.cols, "NORM": int(norm is not None), "EPS": float(eps), "GATHERED": 1, "ITEMS": self.items}
        macros |= {"INT_INPUT": int(self.cols % 32 == 0), "FLOAT_INPUT": 1}
        source = plain_source(self.kernels.tuning, "activations.c", "activations", macros, ["activations.h", "norm.h"])
        inputs = [x, rows] if norm is None else [x, norm, rows]
        return launch(source, "activations", [self.places], self.items, [activations(x, self.places, self.cols)], inputs)[0]

    def product(
        self, name: str, x: Tensor, weights: Sequence[PackedMatrix], rows: int, macros: dict[str, object], out: Tensor, experts: Tensor
    ) -> Tensor:
        """Kernel <name>.c of activations by place with each place's expert, of `rows` rows."""
        kernels, cols = self.kernels, weights[0].shape[1]
        shape, abreast = kernels.shape(name, weights), len(weights)
        tokens = kernels.tile_tokens(self.tile, shape)
        macros = macros | {
            "TOKENS": self.places,
            "COLS": cols,
            "OUT_ROWS": rows,
            "NORM": 0,
            "EPS": 0.0,
            "EXPERT_TILES": self.tile // tokens,
        }
        macros |= {
            "EXPERT_TILES": self.tile // tokens,
            "TILE_TOKENS": tokens,
            "SLOTS": shape.slots,
            "ITEMS": shape.items,
            "LOADS": shape.loads,
        }
        source = decode_source(kernels.tuning, f"{name}.c", name, [w.format for w in weights], macros)
        groups = [self.places // tokens, -(-rows // (GROUP * shape.slots // abreast))]
        return launch(source, name, groups, shape.items, [out], [x, *(w.data for w in weights), experts])[0]

    def combine(self, products: Tensor, shares: Tensor, places: Tensor, residual: Tensor, out: Tensor) -> Tensor:
        """residual + the sum over each token's experts of share * product."""
        source = plain_source(
            self.kernels.tuning, "combine_experts.c", "combine_experts", {"COLS": self.cols, "USED": self.routing.used, "ITEMS": self.items}
        )
        return launch(source, "combine_experts", [self.T], self.items, [out], [products, shares, places, residual])[0]
