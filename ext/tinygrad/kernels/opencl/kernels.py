"""The kernel set for OpenCL devices of any kind: OpenCL C 1.2 without extensions, float32 sums over packed weights, see cl/.

Weights lie as the CPU's kernels have them (sixteen rows side by side): sixteen items read 64 bytes in a row, whole sectors of any GPU's
memory, and packing, its cache on disk and its tests serve both.
"""

import math
from collections.abc import Sequence

from tinygrad import Tensor, UOp, dtypes

from ext.tinygrad.kernels.cpu.formats import GROUP
from ext.tinygrad.kernels.cpu.weight import CPUWeight
from ext.tinygrad.kernels.matrix import QuantMatrix
from ext.tinygrad.kernels.opencl.program import launch
from ext.tinygrad.kernels.opencl.source import embed_source, plain_source, product_source
from ext.tinygrad.kernels.opencl.tuning import Tuning
from ext.tinygrad.kernels.twins import TwinKernels

PREFILL_LOCAL, PREFILL_SLOTS = 256, 4  # items and groups of rows of a prefill tile, as prefill.cl is written
QUERIES = 16  # tokens of an attention tile; eight items share each
MOST_HEADS = 8  # query heads that share a key in registers


class OpenCLKernels:
    """Every operation as one kernel for decode; prefill takes one more for what a norm divides by."""

    name = "opencl"

    def __init__(self, tuning: Tuning):
        self.tuning = tuning

    def pack(self, matrix: QuantMatrix, device: str) -> CPUWeight:
        return CPUWeight.pack(matrix, device)

    def embed(self, ids: Tensor, weight: CPUWeight) -> Tensor:
        T, (rows, cols) = ids.shape[0], weight.shape
        local = self.tuning.plain_items
        source = embed_source(weight.format, {"COLS": cols, "OUT_ROWS": rows, "LOCAL": local})
        return launch(source, "embed", [T], local, [_empty(ids, T, cols)], [ids, weight.data])[0]

    def norm_qkv(
        self,
        x: Tensor,
        norm: Tensor,
        eps: float,
        wq: CPUWeight,
        wk: CPUWeight,
        wv: CPUWeight,
        rope: Tensor,
        cache_k: Tensor,
        cache_v: Tensor,
        start_pos: int | UOp,
    ) -> tuple[Tensor, Tensor, Tensor]:
        T, (kv_heads, _, head_dim) = x.shape[0], cache_k.shape
        heads = wq.shape[0] // head_dim
        macros = {"Q_HEADS": heads, "KV_HEADS": kv_heads, **_cache_macros(cache_k)}
        q = _empty(x, T, heads, head_dim)
        out = self._product("qkv", x, norm, eps, [wq, wk, wv], macros, [q, cache_k, cache_v], [rope], start_pos)
        return out[0], out[1], out[2]

    def attend(self, q: Tensor, cache_k: Tensor, cache_v: Tensor, start_pos: int | UOp) -> Tensor:
        (T, heads, head_dim), (kv_heads, rows, _) = q.shape, cache_k.shape
        if head_dim % 4:
            return TwinKernels().attend(q, cache_k, cache_v, start_pos)
        macros: dict[str, object] = {
            "HEADS_PER_KV": heads // kv_heads,
            "SCALE": math.log2(math.e) * head_dim**-0.5,
            **_cache_macros(cache_k),
        }
        out, inputs = _empty(q, T, heads * head_dim), [q, cache_k, cache_v]
        if T > 1:
            macros |= {
                "TOKENS": T,
                "QUERY_HEADS": heads,
                "QUERIES": QUERIES,
                "CHUNK": self.tuning.attend_chunk(head_dim),
                "LOCAL": 8 * QUERIES,
            }
            source = plain_source("attend_prefill.cl", "attend_prefill", macros)
            return launch(source, "attend_prefill", [heads, -(-T // QUERIES)], 8 * QUERIES, [out], inputs, start_pos)[0]
        shared = max(n for n in range(1, MOST_HEADS + 1) if heads // kv_heads % n == 0)
        local, splits = self.tuning.attend_items(head_dim), self.tuning.attend_splits(rows, heads // shared)
        macros |= {"HEADS": shared, "SPLITS": splits}
        source = plain_source("attend_decode.cl", "attend_decode", macros | {"LOCAL": local})
        partial = _empty(q, heads * splits * (head_dim + 2))
        (partial,) = launch(source, "attend_decode", [heads // shared, splits], local, [partial], inputs, start_pos)
        combined = {"HEAD_DIM": head_dim, "SPLITS": splits, "LOCAL": self.tuning.plain_items}
        source = plain_source("attend_combine.cl", "attend_combine", combined)
        return launch(source, "attend_combine", [heads], self.tuning.plain_items, [out], [partial])[0]

    def linear_residual(self, x: Tensor, weight: CPUWeight, residual: Tensor) -> Tensor:
        return self._product("linear", x, None, 0.0, [weight], {"RESIDUAL": 1}, [_empty(x, x.shape[0], weight.shape[0])], [residual])[0]

    def norm_gated(self, x: Tensor, norm: Tensor, eps: float, w_gate: CPUWeight, w_up: CPUWeight) -> Tensor:
        return self._product("gated", x, norm, eps, [w_gate, w_up], {}, [_empty(x, x.shape[0], w_gate.shape[0])])[0]

    def norm_linear(self, x: Tensor, norm: Tensor, eps: float, weight: CPUWeight) -> Tensor:
        return self._product("linear", x, norm, eps, [weight], {"RESIDUAL": 0}, [_empty(x, x.shape[0], weight.shape[0])])[0]

    def _product(
        self,
        name: str,
        x: Tensor,
        norm: Tensor | None,
        eps: float,
        weights: Sequence[CPUWeight],
        macros: dict[str, object],
        outputs: Sequence[Tensor],
        more: Sequence[Tensor] = (),
        start_pos: int | UOp | None = None,
    ) -> list[Tensor]:
        """Kernel <name>.cl over x (T, cols) and weights with as many columns: side by side in a tile (gated), or one after another."""
        T, cols = x.shape
        abreast = len(weights) if name == "gated" else 1
        macros = {"TOKENS": T, "COLS": cols, "OUT_ROWS": weights[0].shape[0], "NORM": int(norm is not None), "EPS": float(eps), **macros}
        inputs = [x] if norm is None else [x, norm]
        if T == 1:
            core, slots, tokens = "decode.cl", abreast, 1
            local = self.tuning.row_items(cols, slots) * GROUP * slots
        else:
            core, slots, tokens, local = "prefill.cl", PREFILL_SLOTS, next((n for n in (16, 32) if T <= n), 64), PREFILL_LOCAL
            macros["TILE_TOKENS"] = tokens
            if norm is not None:
                inputs.append(self._inverse_rms(x, eps))
        source = product_source(core, f"{name}.cl", name, [w.format for w in weights], macros | {"SLOTS": slots, "LOCAL": local})
        rows = GROUP * slots // abreast
        tiles = sum(-(-w.shape[0] // rows) for w in weights) // abreast
        return launch(source, name, [tiles, -(-T // tokens)], local, outputs, [*inputs, *(w.data for w in weights), *more], start_pos)

    def _inverse_rms(self, x: Tensor, eps: float) -> Tensor:
        T, cols = x.shape
        source = plain_source("rms.cl", "rms", {"COLS": cols, "EPS": float(eps), "LOCAL": self.tuning.plain_items})
        return launch(source, "rms", [T], self.tuning.plain_items, [_empty(x, T)], [x])[0]


def _empty(like: Tensor, *shape: int) -> Tensor:
    return Tensor.empty(*shape, dtype=dtypes.float32, device=like.device)


def _cache_macros(cache: Tensor) -> dict[str, object]:
    assert cache.dtype in (dtypes.float16, dtypes.float32), f"no cache of {cache.dtype}"
    _, rows, head_dim = cache.shape
    return {"CACHE_HALF": int(cache.dtype == dtypes.float16), "CACHE_ROWS": rows, "HEAD_DIM": head_dim}
