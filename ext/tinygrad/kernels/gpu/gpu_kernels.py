"""The kernel set for GPUs, through OpenCL or CUDA: one source in two dialects, see c/ and docs/kernels.md.

Weights lie as the CPU's kernels have them (sixteen rows side by side): four rows of eight columns are one load of 16 bytes, and packing,
its cache on disk and its tests serve both.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from tinygrad import Tensor, UOp, dtypes
from tinygrad.uop.ops import Ops

from ext.tinygrad.buffers import upload
from ext.tinygrad.kernels.gpu.gpu_experts import Mixture
from ext.tinygrad.kernels.gpu.gpu_low_rank import change_macros, change_tensors, half
from ext.tinygrad.kernels.gpu.gpu_source import decode_source, embed_source, launch, matrix_source, plain_source, tile_source
from ext.tinygrad.kernels.gpu.operands import (
    ROW_SIZES,
    activations,
    cache_macros,
    few,
    floats,
    place_macros,
    table,
    variable,
)
from ext.tinygrad.kernels.gpu.product_tuning import product_key, tune_products
from ext.tinygrad.kernels.gpu.tuning import DecodeShape, Tuning
from ext.tinygrad.kernels.low_rank import AdaptedWeight, packed, reads
from ext.tinygrad.kernels.matrix import QuantMatrix
from ext.tinygrad.kernels.packed.formats import GROUP, LAYOUT
from ext.tinygrad.kernels.packed.packed_matrix import PackedMatrix
from ext.tinygrad.kernels.protocol import FULL_ATTENTION, Attention, HeadTransform, OneTokenProduct, Position, Routing, RowPositions
from ext.tinygrad.kernels.quantised_rows import QUANTISED, head_dim_of
from ext.tinygrad.kernels.reference import ReferenceKernels, into

PREFILL_ITEMS, PREFILL_SLOTS = 256, 4  # items and groups of rows of a prefill tile, as prefill.h is written
QUERIES = 16  # tokens of an attention tile; eight items share each
MOST_HEADS = 4  # query heads that share a key in registers
MATRIX_WARPS = 4  # of a tile of attention on the matrix instruction, 16 tokens each
MOST_MATRIX_DIMS = 256  # of a head there: more would not fit into registers
LARGEST = 64  # logits that are ranked on the device: the default top-k and some that may not be sampled
MOST_SORTED, MOST_GROUPS = 2048, 128  # keys and work-groups of that
WARP = 32  # items that work in step, where they do
COUNTERS = 4096  # of work-groups that wait for each other
MOST_TILE_TOKENS = 8  # of a few that share a weight in registers


class GPUKernels:
    """Activations of one token, or of each of a few (ROW_SIZES), are int8 (per 32 columns) where they meet integer weights, as on the CPU;
    many tokens are floats.

    What `attend` and `norm_gated` hand to `linear_residual` is, for few tokens, a buffer of bytes (c/activations.h) that holds both.
    LayerNorm and norms after a layer are generated code between these kernels.
    """

    name = "gpu"
    layout = LAYOUT
    changes_alike = True
    changes_by_row = False  # it would take tables of addresses, which OpenCL does not hand out
    chunks = (512, 128, 32)  # tokens that a prefill pass takes: tiles of few tokens would leave most of a large card idle

    def __init__(self, tuning: Tuning):
        self.tuning = tuning
        self._counters: dict[str, Tensor] = {}
        self.shapes: dict[str, DecodeShape] = {}  # that were measured, by product

    def pack(self, matrix: QuantMatrix, device: str) -> PackedMatrix:
        return PackedMatrix.pack(matrix, device)

    def row_sizes(self, head_dim: int) -> tuple[int, ...]:
        return () if head_dim % 4 else ROW_SIZES

    def embed(self, ids: Tensor, weight: PackedMatrix, scale: float = 1.0) -> Tensor:
        T, (rows, cols) = ids.shape[0], weight.shape
        items = self.tuning.plain_items
        macros: dict[str, object] = {"COLS": cols, "OUT_ROWS": rows, "ITEMS": items}
        if isinstance(weight, AdaptedWeight):
            macros |= {"ADAPTED": 1, "CHANGE_HALF": half([weight]), "RANK": weight.rank, "GAIN": int(weight.gain is not None)}
        source = embed_source(self.tuning, packed(weight).format, macros)
        rows_of_ids = launch(source, "embed", [T], items, [floats(ids, T, cols)], [ids, *weight.tensors])[0]
        return rows_of_ids if scale == 1 else (rows_of_ids * scale).contiguous()

    def norm_qkv(
        self,
        x: Tensor,
        norm: Tensor | None,
        eps: float,
        wq: PackedMatrix,
        wk: PackedMatrix,
        wv: PackedMatrix,
        rope: Tensor,
        cache_k: Tensor,
        cache_v: Tensor,
        start_pos: Position,
        heads: HeadTransform | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        T, kv_heads, head_dim = x.shape[0], cache_k.shape[-3], head_dim_of(cache_k)
        n_heads, bias = wq.shape[0] // head_dim, None if heads is None else heads.bias
        macros: dict[str, object] = {"Q_HEADS": n_heads, "KV_HEADS": kv_heads, "BIAS": int(bias is not None), **cache_macros(cache_k)}
        outputs = [floats(x, T, n_heads, head_dim), cache_k, cache_v]
        more = [rope] if bias is None else [rope, bias]
        if heads is None or heads.norm is None:
            out = self._product("qkv", x, norm, eps, [wq, wk, wv], macros, outputs, more, start_pos, cache_k.dtype == QUANTISED)
            return out[0], out[1], out[2]
        projected = [self.norm_linear(x, norm, eps, w) for w in (wq, wk, wv)]
        if heads is not None and heads.norm is not None:
            macros |= {"PER_HEAD": int(heads.per_head), "EPS": float(heads.eps)}
            more.insert(1, heads.norm)
        items = self.tuning.plain_items
        macros |= {"TOKENS": T, "NORMED": int(len(more) > 1 + (bias is not None)), "ITEMS": items, **place_macros(start_pos)}
        source = plain_source(self.tuning, "heads.c", "heads", macros)
        inputs = [*projected, *more, *table(start_pos)]
        out = launch(source, "heads", [n_heads + 2 * kv_heads, T], items, outputs, inputs, variable(start_pos))
        return out[0], out[1], out[2]

    def attend(
        self,
        q: Tensor,
        cache_k: Tensor,
        cache_v: Tensor,
        start_pos: Position,
        attention: Attention = FULL_ATTENTION,
        then: PackedMatrix | None = None,
    ) -> Tensor:
        (T, heads, head_dim), (*_, kv_heads, _, _) = q.shape, cache_k.shape
        if head_dim % 4:
            return ReferenceKernels().attend(q, cache_k, cache_v, start_pos, attention)
        macros: dict[str, object] = {
            "TOKENS": T,
            "HEADS_PER_KV": heads // kv_heads,
            "HEADS_IN_ALL": heads,
            "SCALE": (1.0 if attention.softcap else math.log2(math.e)) * attention.scale_of(head_dim),
            "WINDOW": attention.window,
            **_capped(attention.softcap),
            **cache_macros(cache_k),
        }
        if T == 1 or isinstance(start_pos, RowPositions):
            return self._attend_each(q, cache_k, cache_v, start_pos, macros)
        macros["QUERY_HEADS"] = heads
        if self.attends_on_matrix(head_dim, cache_k):
            return self._attend_on_matrix(q, cache_k, cache_v, start_pos, macros)
        macros |= {
            "QUERIES": QUERIES,
            "CHUNK": self.tuning.attend_chunk(head_dim),
            "ITEMS": 8 * QUERIES,
        }
        source = plain_source(self.tuning, "attend_prefill.c", "attend_prefill", macros)
        out = floats(q, T, heads * head_dim)
        return launch(source, "attend_prefill", [heads, -(-T // QUERIES)], 8 * QUERIES, [out], [q, cache_k, cache_v], start_pos)[0]

    def attends_on_matrix(self, head_dim: int, cache: Tensor) -> bool:
        """Does attention of many tokens over such a cache use the matrix instruction?"""
        return self.tuning.has_matrix and cache.dtype in (dtypes.float16, QUANTISED) and head_dim % 16 == 0 and head_dim <= MOST_MATRIX_DIMS

    def _attend_on_matrix(self, q: Tensor, cache_k: Tensor, cache_v: Tensor, start_pos: int | UOp, macros: dict[str, object]) -> Tensor:
        T, heads, head_dim = q.shape
        warps = min(MATRIX_WARPS, -(-T // 16))
        tiles, items = -(-T // (16 * warps)), WARP * warps
        macros |= {"QUERIES": 16 * warps, "QUERY_TILES": tiles, "CHUNK": 64 if head_dim <= 128 else 32, "ITEMS": items}
        source = plain_source(self.tuning, "attend_matrix.c", "attend_matrix", macros)
        out = floats(q, T, heads * head_dim)
        return launch(source, "attend_matrix", [heads, tiles], items, [out], [q, cache_k, cache_v], start_pos)[0]

    def _attend_each(self, q: Tensor, cache_k: Tensor, cache_v: Tensor, start_pos: Position, macros: dict[str, object]) -> Tensor:
        """One token, or each of several that stand anywhere."""
        (T, heads, head_dim), (*_, kv_heads, rows, _) = q.shape, cache_k.shape
        shared = max(n for n in range(1, MOST_HEADS + 1) if heads // kv_heads % n == 0)
        splits = self.tuning.attend_splits(rows, heads // shared)
        macros |= {"HEADS": shared, "SPLITS": splits, **place_macros(start_pos)}
        deep = [T] if T > 1 else []
        # a head is whole blocks of what a product reads, or that product quantises the whole
        out = floats(q, T, heads * head_dim) if head_dim % 32 else activations(q, T, heads * head_dim)
        partial = floats(q, T * heads * splits * (head_dim + 2))
        inputs, position = [q, cache_k, cache_v, *table(start_pos)], variable(start_pos)
        if self.tuning.has_shuffle and head_dim in (64, 128, 256):
            items = 4 * WARP if 4 * 4 * shared * (head_dim + 2) <= self.tuning.local_bytes // 2 else 2 * WARP
            macros |= {"ITEMS": items, "STEPS": 4 if shared <= 2 else 2}
            source = plain_source(self.tuning, "attend_decode.c", "attend_decode", macros, ["activations.h"])
            outputs = [out, partial, self._zero_counters(q.device)]
            assert T * heads // shared <= COUNTERS, f"{T} tokens of {heads} heads"
            return launch(source, "attend_decode", [heads // shared, splits, *deep], items, outputs, inputs, position)[0]
        items = self.tuning.attend_items(head_dim)
        source = plain_source(self.tuning, "attend_split.c", "attend_split", macros | {"ITEMS": items})
        (partial,) = launch(source, "attend_split", [heads // shared, splits, *deep], items, [partial], inputs, position)
        source = plain_source(
            self.tuning, "attend_combine.c", "attend_combine", macros | {"ITEMS": self.tuning.plain_items}, ["activations.h"]
        )
        return launch(source, "attend_combine", [heads, *deep], self.tuning.plain_items, [out], [partial])[0]

    def linear_residual(
        self,
        x: Tensor,
        weight: PackedMatrix,
        residual: Tensor,
        out: Tensor | None = None,
        bias: Tensor | None = None,
        scale: float = 1.0,
    ) -> Tensor:
        if out is not None and (x.uop.op is not Ops.AFTER or reads(x, out)):
            # generated code may read what `out` holds now, and would be scheduled after a launch that overwrites it
            return into(out, self.linear_residual(x, weight, residual, None, bias, scale))
        rows, cols = weight.shape
        T = residual.shape[0]
        out = floats(x, T, rows) if out is None else out
        macros = {"RESIDUAL": 1, "BIAS": int(bias is not None), **_scaled(scale)}
        return self._product("linear", x, None, 0.0, [weight], macros, [out], [residual] if bias is None else [bias, residual])[0]

    def norm_gated(
        self,
        x: Tensor,
        norm: Tensor | None,
        eps: float,
        w_gate: PackedMatrix,
        w_up: PackedMatrix,
        activation: str = "silu",
        bias: Tensor | None = None,
        then: PackedMatrix | None = None,
    ) -> Tensor:
        T, rows = x.shape[0], w_gate.shape[0]
        out = activations(x, T, rows) if few(T) else floats(x, T, rows)
        macros = {"GELU": int(activation == "gelu"), "BIAS": int(bias is not None)}
        return self._product("gated", x, norm, eps, [w_gate, w_up], macros, [out], [] if bias is None else [bias])[0]

    def norm_linear(
        self, x: Tensor, norm: Tensor | None, eps: float, weight: PackedMatrix, scale: float = 1.0, softcap: float = 0.0
    ) -> Tensor:
        macros = {"RESIDUAL": 0, **_scaled(scale), **_capped(softcap)}
        return self._product("linear", x, norm, eps, [weight], macros, [floats(x, x.shape[0], weight.shape[0])])[0]

    def experts_residual(
        self,
        x: Tensor,
        norm: Tensor | None,
        eps: float,
        router: PackedMatrix,
        w_gate: PackedMatrix,
        w_up: PackedMatrix,
        w_down: PackedMatrix,
        routing: Routing,
        residual: Tensor,
        out: Tensor | None = None,
        activation: str = "silu",
    ) -> Tensor:
        (T, cols), hidden = x.shape, w_gate.shape[0] // routing.experts
        mixture = Mixture(self, routing, T, cols, hidden)
        shares, rows, experts, places = mixture.route(self.norm_linear(x, norm, eps, router))
        inputs = mixture.gathered(x, norm, eps, rows)
        units = activations(x, mixture.places, hidden)
        gelu: dict[str, object] = {"GELU": int(activation == "gelu")}
        units = mixture.product("gated", inputs, [w_gate, w_up], hidden, gelu, units, experts)
        products = mixture.product("linear", units, [w_down], cols, {"RESIDUAL": 0}, floats(x, mixture.places, cols), experts)
        return mixture.combine(products, shares, places, residual, floats(x, T, cols) if out is None else out)

    def norm_residual(self, x: Tensor, norm: Tensor, eps: float, residual: Tensor, out: Tensor | None = None) -> Tensor:
        return ReferenceKernels().norm_residual(x, norm, eps, residual, out)

    def layer_norm(self, x: Tensor, norm: Tensor, bias: Tensor | None, eps: float) -> Tensor:
        return ReferenceKernels().layer_norm(x, norm, bias, eps)

    def _product(
        self,
        name: str,
        x: Tensor,
        norm: Tensor | None,
        eps: float,
        weights: Sequence[PackedMatrix],
        macros: Mapping[str, object],
        outputs: Sequence[Tensor],
        more: Sequence[Tensor] = (),
        start_pos: Position | None = None,
        blocks: bool = False,
    ) -> list[Tensor]:
        """Kernel <name>.c over x and weights with as many columns: side by side in a tile (gated), or one after another.

        `blocks`: what it stores are blocks of 32 rows."""
        T, cols = x.shape[0], weights[0].shape[1]
        abreast = len(weights) if name == "gated" else 1
        macros = {"TOKENS": T, "COLS": cols, "OUT_ROWS": weights[0].shape[0], "NORM": int(norm is not None), "EPS": float(eps), **macros}
        macros |= place_macros(start_pos) | change_macros(weights)
        changes = change_tensors(self.tuning, x, norm, eps, weights)
        inputs = [x] if norm is None else [x, norm]
        weights = [packed(w) for w in weights]
        formats = [w.format for w in weights]
        if few(T):
            shape = self.shape(name, weights, blocks)
            slots, items = shape.slots, shape.items
            if x.dtype != dtypes.uint8 and (T > 1 or norm is None):
                # by as many items as a product of one token has: its sum of squares has the same order then
                inputs, macros["NORM"] = [self._to_activations(x, norm, eps, items if T > 1 else self.tuning.plain_items)], 0
            tokens = self.tile_tokens(T, shape)
            macros |= {"TILE_TOKENS": tokens, "SLOTS": slots, "ITEMS": items, "LOADS": shape.loads}
            source = decode_source(self.tuning, f"{name}.c", name, formats, macros)
        elif self.tuning.has_matrix and cols % 32 == 0 and all(f.element != "f32" for f in formats):
            slots, tokens = self.tuning.matrix_tile(sum(w.shape[0] for w in weights), T)
            items = PREFILL_ITEMS
            source = matrix_source(
                self.tuning, f"{name}.c", name, formats, macros | {"TILE_TOKENS": tokens, "SLOTS": slots, "ITEMS": items}
            )
            inputs = self._halves(x, norm, eps)
        else:
            slots, tokens, items = PREFILL_SLOTS, next((n for n in (16, 32) if T <= n), 64), PREFILL_ITEMS
            macros |= {"TILE_TOKENS": tokens, "SLOTS": slots, "ITEMS": items}
            if norm is not None:
                inputs.append(self._inverse_rms(x, eps))
            source = tile_source(self.tuning, f"{name}.c", name, formats, macros)
        rows = GROUP * slots // abreast
        tiles = sum(-(-w.shape[0] // rows) for w in weights) // abreast
        inputs = [*inputs, *(w.data for w in weights), *changes, *more, *table(start_pos)]
        return launch(source, name, [-(-T // tokens), tiles], items, outputs, inputs, variable(start_pos))

    def tile_tokens(self, T: int, shape: DecodeShape) -> int:
        """Of few tokens, how many a work-group takes: as many as its sums have room for in half of the local memory."""
        parts = 1 if self.tuning.has_shuffle else 16
        each = 4 * GROUP * (parts * shape.items // WARP + shape.slots)
        fits = (n for n in (MOST_TILE_TOKENS, 4, 2) if n <= T and n * each <= self.tuning.local_bytes // 2)
        return next(fits, 1)

    @property
    def most_largest(self) -> int:
        """How many of the largest `largest` gives; 0 where the host, which shares the memory, is quicker."""
        return LARGEST if self.tuning.kind == "gpu" else 0

    def largest(self, logits: Tensor) -> Tensor:
        count = math.prod(logits.shape)
        groups = max(1, min(MOST_GROUPS, -(-count // (MOST_SORTED - LARGEST))))
        keys = Tensor.empty(groups, LARGEST, dtype=dtypes.uint64, device=logits.device)
        (keys,) = self._launch_largest(keys, logits, count, groups, last=False)
        out = Tensor.empty(2, LARGEST, dtype=dtypes.int32, device=logits.device)
        return self._launch_largest(out, keys, groups * LARGEST, 1, last=True)[0]

    def _launch_largest(self, out: Tensor, values: Tensor, count: int, groups: int, last: bool) -> list[Tensor]:
        stretch = -(-count // groups)
        keys = 1 << (min(stretch + LARGEST, MOST_SORTED) - 1).bit_length()
        items = min(1024, self.tuning.most_items, keys // 2)
        macros = {"LARGEST": LARGEST, "COUNT": count, "STRETCH": stretch, "SORTED": keys, "LAST": int(last), "ITEMS": items}
        entry = "largest" if last else "largest_keys"
        return launch(plain_source(self.tuning, "largest.c", entry, macros), entry, [groups], items, [out], [values])

    def tune(self, products: Sequence[OneTokenProduct], seconds: float | None = None) -> None:
        """Measure which work-groups suit each product on its device, for so many seconds at most, and use them from here on.

        None takes the time it needs. What was found earlier on such a device is read from the disk."""
        tune_products(self, products, seconds)

    def shape(self, name: str, weights: Sequence[PackedMatrix], blocks: bool = False) -> DecodeShape:
        """The work-group of a product of one token, in `blocks` of 32 rows or not: what was measured, or the table's."""
        rows, cols = weights[0].shape
        abreast = len(weights) if name == "gated" else 1
        # whole blocks of 32 rows of what another product reads, or of what a cache keeps
        slots = 2 * abreast if blocks or (abreast > 1 and rows % 32 == 0) else abreast
        default = self.tuning.decode_shape(cols, slots, any(w.format.element for w in weights))
        found = self.shapes.get(product_key(name, weights, blocks))
        return found if found and found.slots % slots == 0 and found.items <= self.tuning.most_items else default

    def _to_activations(self, x: Tensor, norm: Tensor | None, eps: float, items: int) -> Tensor:
        """float32 (T, cols), normed where there is a norm, as a buffer of activations."""
        T, cols = x.shape
        macros = {"COLS": cols, "NORM": int(norm is not None), "EPS": float(eps), "INT_INPUT": int(cols % 32 == 0), "FLOAT_INPUT": 1}
        source = plain_source(self.tuning, "activations.c", "activations", macros | {"ITEMS": items}, ["activations.h", "norm.h"])
        return launch(source, "activations", [T], items, [activations(x, T, cols)], [x] if norm is None else [x, norm])[0]

    def _halves(self, x: Tensor, norm: Tensor | None, eps: float) -> list[Tensor]:
        """Normed rows as halves, and what undoes their scales: what products on the matrix instruction take."""
        T, cols = x.shape
        items = self.tuning.plain_items
        macros = {"COLS": cols, "NORM": int(norm is not None), "EPS": float(eps), "ITEMS": items}
        source = plain_source(self.tuning, "halves.c", "halves", macros, ["activations.h", "input.h"])
        halves = Tensor.empty(T, cols, dtype=dtypes.float16, device=x.device)
        return launch(source, "halves", [T], items, [halves, floats(x, T)], [x] if norm is None else [x, norm])

    def _inverse_rms(self, x: Tensor, eps: float) -> Tensor:
        T, cols = x.shape
        source = plain_source(self.tuning, "rms.c", "rms", {"COLS": cols, "EPS": float(eps), "ITEMS": self.tuning.plain_items})
        return launch(source, "rms", [T], self.tuning.plain_items, [floats(x, T)], [x])[0]

    def _zero_counters(self, device: str) -> Tensor:
        """int32 zeros, which kernels leave as zeros: in stream order one buffer serves all of a device's kernels."""
        if device not in self._counters:
            self._counters[device] = upload(np.zeros(COUNTERS, np.int32), device)
        return self._counters[device]


def _scaled(scale: float) -> dict[str, object]:
    return {} if scale == 1 else {"SCALED": 1, "FACTOR": float(scale)}


def _capped(softcap: float) -> dict[str, object]:
    return {"CAPPED": 1, "SOFTCAP": float(softcap)} if softcap else {}
