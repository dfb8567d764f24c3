"""The plain-Tensor kernel set: runs on any device that tinygrad reaches, and is the oracle for every fused kernel.

Its weights are int8 in sixteen interleaved rows, which tinygrad's own code generator turns into full vector loads.
"""

import functools
from dataclasses import dataclass

import numpy as np
from tinygrad import Tensor, UOp, dtypes
from tinygrad.codegen.opt import Opt, OptOps
from tinygrad.helpers import NUM_CPU_THREADS
from tinygrad.uop.ops import AxisType, KernelInfo, Ops

from ext.tinygrad.buffers import upload
from ext.tinygrad.kernels.matrix import Blocks, QuantMatrix, to_blocks
from ext.tinygrad.kernels.protocol import FULL_ATTENTION, Attention, HeadTransform, Position, Routing, RowPositions
from ext.tinygrad.kernels.quantised_rows import QUANTISED, floats_of, head_dim_of, quantise

LANES = 16  # rows side by side: one 512-bit float vector, two 256-bit ones
MOST_TASKS = 16  # that a product is divided in, where there are threads to share them out to


def _interleave(values: np.ndarray, rows: int, groups: int) -> np.ndarray:
    """(rows, groups * n) to (rows / LANES, groups, n, LANES), rows padded with zeros to a multiple of LANES."""
    padded = np.zeros((-(-rows // LANES) * LANES, values.shape[1]), values.dtype)
    padded[:rows] = values
    return np.ascontiguousarray(padded.reshape(-1, LANES, groups, values.shape[1] // groups).transpose(0, 2, 3, 1))


def _narrowest(values: np.ndarray) -> np.ndarray:
    """float16 where it holds the same numbers (the simple ggml types), float32 otherwise (products of the K types)."""
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    return half if np.array_equal(half.astype(np.float32), values) else values


def _product(
    out: UOp, x: UOp, quants: UOp, scales: UOp, minima: UOp | None = None, totals: UOp | None = None, *, T: int, threads: bool
) -> UOp:
    """The kernel of LaneWeight.matmul, its vectors chosen by hand: tinygrad's heuristics find them for some shapes only (docs/notes.md)."""
    blocks, groups, group, lanes = quants.shape
    block, token, lane = UOp.range(blocks, 0), UOp.range(T, 1), UOp.range(lanes, 2)
    g: UOp | int = UOp.range(groups, 3, AxisType.REDUCE) if groups > 1 else 0  # a sum of one is none
    k = UOp.range(group, 4, AxisType.REDUCE)

    def load(buffer: UOp, *index: UOp | int) -> UOp:
        return buffer[index].load().cast(dtypes.float32)

    value = (load(quants, block, g, k, lane) * load(x, token, g * group + k)).reduce(k, arg=Ops.ADD) * load(scales, block, g, 0, lane)
    if minima is not None and totals is not None:
        value = value + load(minima, block, g, 0, lane) * load(totals, token, g)
    if isinstance(g, UOp):
        value = value.reduce(g, arg=Ops.ADD)
    stored = out[token, block, lane].store(value).end(block, token, lane)
    # options name an axis by its place among those that are left: what runs only once is no loop any more
    token_axis = int(blocks > 1)
    opts = [Opt(OptOps.UPCAST, token_axis + int(T > 1), lanes)]
    # tokens that share a loaded weight: as many as leave their sums in registers
    if T > 1 and (shared := next((n for n in (8, 4, 2) if T % n == 0), None)):
        opts.append(Opt(OptOps.UPCAST, token_axis, shared))
    if threads and (tasks := max(n for n in range(1, min(MOST_TASKS, NUM_CPU_THREADS.value) + 1) if blocks % n == 0)) > 1:
        opts.append(Opt(OptOps.THREAD, 0, tasks))
    return stored.sink(arg=KernelInfo(name=f"lanes_{blocks}_{T}_{groups}", opts_to_apply=tuple(opts)))


@dataclass(frozen=True)
class LaneWeight:
    """Integers with a scale, and perhaps a minimum, for every `group` columns; nothing of the file's precision is lost."""

    shape: tuple[int, int]
    quants: Tensor  # (rows / LANES, groups, group, LANES) int8
    scales: Tensor  # (rows / LANES, groups, 1, LANES) float16 or float32
    minima: Tensor | None

    @classmethod
    def pack(cls, blocks: Blocks, device: str) -> "LaneWeight":
        rows, cols = blocks.quants.shape
        groups = cols // blocks.group

        def put(values: np.ndarray) -> Tensor:
            return upload(_interleave(values, rows, groups), device)

        minima = None if blocks.minima is None else put(_narrowest(blocks.minima))
        return cls((rows, cols), put(blocks.quants), put(_narrowest(blocks.scales)), minima)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return tuple(t for t in (self.quants, self.scales, self.minima) if t is not None)

    @property
    def layout(self) -> tuple:
        return ("lanes", self.shape, *((t.shape, t.dtype) for t in self.tensors))

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes() for t in self.tensors)

    def to_tensor(self) -> Tensor:
        rows, cols = self.shape
        values = self.quants.cast(dtypes.float32) * self.scales.cast(dtypes.float32)
        if self.minima is not None:
            values = values + self.minima.cast(dtypes.float32)
        return values.permute(0, 3, 1, 2).reshape(-1, cols)[:rows]

    def matmul(self, x: Tensor) -> Tensor:
        """x @ weight.T: (T, cols) -> (T, rows)."""
        T, (blocks, groups, group, lanes) = x.shape[0], self.quants.shape
        operands = [x.contiguous(), self.quants, self.scales]
        if self.minima is not None:
            # one number per group of x, shared by every row
            operands += [self.minima, x.reshape(T, groups, group).sum(2).contiguous()]
        out = Tensor.empty(T, blocks, lanes, dtype=dtypes.float32, device=x.device)
        out = out.custom_kernel(*operands, fxn=functools.partial(_product, T=T, threads=x.device == "CPU"))[0]
        return out.reshape(T, blocks * lanes)[:, : self.shape[0]]

    def rows_at(self, ids: Tensor) -> Tensor:
        """Rows by number: (T,) int32 -> (T, cols)."""
        blocks, groups, group, lanes = self.quants.shape
        high, low = ids // lanes, ids % lanes

        def pick(t: Tensor) -> Tensor:
            return t.cast(dtypes.float32).permute(0, 3, 1, 2)[high, low]

        values = pick(self.quants) * pick(self.scales)
        if self.minima is not None:
            values = values + pick(self.minima)
        return values.reshape(ids.shape[0], groups * group)


@dataclass(frozen=True)
class DenseWeight:
    """Floats as they are: float32 stays exact, float16 and what has no integer form stay float16."""

    values: Tensor  # (rows, cols) float32 or float16

    @classmethod
    def pack(cls, matrix: QuantMatrix, device: str) -> "DenseWeight":
        values = matrix.dequantize()
        if matrix.type != "F32":
            values = _narrowest(values)
        return cls(upload(values, device))

    @property
    def shape(self) -> tuple[int, int]:
        rows, cols = self.values.shape
        return int(rows), int(cols)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (self.values,)

    @property
    def layout(self) -> tuple:
        return ("dense", self.shape, self.values.dtype)

    @property
    def nbytes(self) -> int:
        return self.values.nbytes()

    def to_tensor(self) -> Tensor:
        return self.values.cast(dtypes.float32)

    def matmul(self, x: Tensor) -> Tensor:
        return x @ self.to_tensor().T

    def rows_at(self, ids: Tensor) -> Tensor:
        return self.values[ids].cast(dtypes.float32)


def pack(matrix: QuantMatrix, device: str) -> LaneWeight | DenseWeight:
    """The portable layout that loses nothing: lanes of integers where the type is made of them, floats otherwise."""
    blocks = to_blocks(matrix)
    return DenseWeight.pack(matrix, device) if blocks is None else LaneWeight.pack(blocks, device)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / rms(x) * weight over the last axis; arXiv 1910.07467."""
    return x * (x.square().mean(-1, keepdim=True) + eps).rsqrt() * weight


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """RoPE on adjacent pairs: x (T, n, Hd), angles (T, Hd / 2, 2) as cos and sin; arXiv 2104.09864."""
    T, n, head_dim = x.shape
    pairs = x.reshape(T, n, head_dim // 2, 2)
    even, odd = pairs[..., 0], pairs[..., 1]  # (T, n, Hd / 2) each
    cos, sin = angles[..., 0].unsqueeze(1), angles[..., 1].unsqueeze(1)  # (T, 1, Hd / 2) each
    return Tensor.stack(even * cos - odd * sin, odd * cos + even * sin, dim=-1).reshape(T, n, head_dim)


def store(cache: Tensor, new: Tensor, start_pos: Position) -> Tensor:
    """Write new (T, n, Hd) into cache (n, rows, Hd) at start_pos; what is returned is the cache after the write.

    Floats become what the cache is made of: 8-bit blocks in one of those, which takes rows of bytes as they are."""
    T = new.shape[0]
    if cache.dtype == QUANTISED and new.dtype != QUANTISED:
        new = quantise(new)
    if isinstance(start_pos, RowPositions):
        return cache.custom_kernel(new.cast(cache.dtype).contiguous(), start_pos.table, fxn=_scatter)[0]
    window = cache[:, start_pos : start_pos + T]
    return Tensor(cache.uop.after(window.uop.store(new.transpose(0, 1).cast(cache.dtype).uop)))


def _scatter(cache: UOp, new: UOp, table: UOp) -> UOp:
    """Each token's rows to their place in an arena; those of one without a position to the last row, which no conversation comes to."""
    tokens, heads, head_dim = new.shape
    t, h, d = UOp.range(tokens, 0), UOp.range(heads, 1), UOp.range(head_dim, 2)
    slot, position = table[0, t].load(), table[1, t].load()
    row = (position < 0).where(position.const_like(cache.shape[2] - 1), position)
    return cache[slot, h, row, d].store(new[t, h, d].load()).end(t, h, d).sink(arg=KernelInfo(name=f"scatter_{tokens}"))


def into(out: Tensor | None, result: Tensor) -> Tensor:
    """`result` in a buffer of its own, or in that of `out`."""
    result = result.contiguous()
    return result if out is None else Tensor(out.uop.after(out.uop.store(result.uop)))


def capped(scores: Tensor, softcap: float) -> Tensor:
    """softcap * tanh(scores / softcap); 0 leaves them."""
    return (scores / softcap).tanh() * softcap if softcap else scores


def gated(gate: Tensor, up: Tensor, activation: str, bias: Tensor | None) -> Tensor:
    """activation(gate) * up, after a bias for both, side by side."""
    if bias is not None:
        gate, up = gate + bias[: gate.shape[1]], up + bias[gate.shape[1] :]
    return ((gate.silu() if activation == "silu" else gate.gelu()) * up).contiguous()


def expert_shares(logits: Tensor, routing: Routing) -> Tensor:
    """The router's logits (T, E) to each expert's share, 0 where it is not used."""
    chances = logits.softmax(-1).contiguous()
    _, chosen = chances.topk(routing.used, dim=-1)
    used = (chosen.unsqueeze(-1) == Tensor.arange(routing.experts)).any(axis=1)  # (T, E)
    shares = used.where(chances, 0)
    return shares / shares.sum(-1, keepdim=True) if routing.normalize else shares


def store_heads(
    q: Tensor,  # (T, H * Hd), as projected
    k: Tensor,  # (T, KvH * Hd)
    v: Tensor,
    rope: Tensor,
    cache_k: Tensor,
    cache_v: Tensor,
    start_pos: Position,
    heads: HeadTransform | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The rest of norm_qkv after the projections: bias, norms, RoPE and the store. -> q (T, H, Hd) and the caches."""
    T, n_kv_heads, head_dim = q.shape[0], cache_k.shape[-3], head_dim_of(cache_k)
    if heads is not None and heads.bias is not None:
        q_rows, kv_rows = q.shape[1], k.shape[1]
        q, k, v = q + heads.bias[:q_rows], k + heads.bias[q_rows : q_rows + kv_rows], v + heads.bias[q_rows + kv_rows :]
    if heads is not None and heads.norm is not None:
        first = head_dim if heads.per_head else q.shape[1]  # of the queries' weights
        of_q, of_k = (q.reshape(T, -1, head_dim), k.reshape(T, -1, head_dim)) if heads.per_head else (q, k)
        q, k = rms_norm(of_q, heads.norm[:first], heads.eps), rms_norm(of_k, heads.norm[first:], heads.eps)
    if isinstance(start_pos, RowPositions):
        angles = rope[start_pos.positions.maximum(0)]  # (T, Hd / 2, 2)
    else:
        angles = rope[start_pos : start_pos + T]
    turned = rotate(q.reshape(T, -1, head_dim), angles).contiguous()  # (T, H, Hd)
    k, v = rotate(k.reshape(T, n_kv_heads, head_dim), angles), v.reshape(T, n_kv_heads, head_dim)
    return turned, store(cache_k, k, start_pos), store(cache_v, v, start_pos)


class ReferenceKernels:
    """Every operation in Tensor algebra; each ends in a buffer, so that layers share the few kernels that tinygrad generates."""

    name = "tinygrad"
    layout = ""
    changes_alike = changes_by_row = False

    def row_sizes(self, head_dim: int) -> tuple[int, ...]:
        return ()  # an oracle of such passes: attention of one token sums another number of terms

    def pack(self, matrix: QuantMatrix, device: str) -> LaneWeight | DenseWeight:
        return pack(matrix, device)

    def embed(self, ids: Tensor, weight: LaneWeight | DenseWeight, scale: float = 1.0) -> Tensor:
        rows = weight.rows_at(ids)
        return (rows if scale == 1 else rows * scale).contiguous()

    def norm_qkv(
        self,
        x: Tensor,
        norm: Tensor | None,
        eps: float,
        wq: LaneWeight | DenseWeight,
        wk: LaneWeight | DenseWeight,
        wv: LaneWeight | DenseWeight,
        rope: Tensor,
        cache_k: Tensor,
        cache_v: Tensor,
        start_pos: Position,
        heads: HeadTransform | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        h = x if norm is None else rms_norm(x, norm, eps).contiguous()  # (T, D)
        q, k, v = (w.matmul(h).contiguous() for w in (wq, wk, wv))
        return store_heads(q, k, v, rope, cache_k, cache_v, start_pos, heads)

    def attend(
        self,
        q: Tensor,
        cache_k: Tensor,
        cache_v: Tensor,
        start_pos: Position,
        attention: Attention = FULL_ATTENTION,
        then: LaneWeight | DenseWeight | None = None,
    ) -> Tensor:
        if isinstance(start_pos, RowPositions):
            return self._attend_rows(q, cache_k, cache_v, start_pos, attention)
        (T, n_heads, head_dim), (n_kv_heads, rows, _) = q.shape, cache_k.shape
        masked = T > 1 or attention.window > 0
        if not masked:
            # one token sees everything that is cached: the range is symbolic and nothing needs a mask
            cache_k, cache_v = cache_k[:, : start_pos + 1], cache_v[:, : start_pos + 1]
        k = floats_of(cache_k).unsqueeze(1)  # (KvH, 1, S, Hd)
        v = floats_of(cache_v).unsqueeze(1)
        heads = q.reshape(T, n_kv_heads, n_heads // n_kv_heads, head_dim).permute(1, 2, 0, 3)  # (KvH, H / KvH, T, Hd)
        scores = (heads * attention.scale_of(head_dim)) @ k.transpose(-1, -2)  # (KvH, H / KvH, T, S)
        scores = capped(scores, attention.softcap)
        if masked:
            limits = Tensor.arange(T).reshape(T, 1) + start_pos  # a Variable is no shape here: the mask spans all rows
            seen = Tensor.arange(rows) <= limits
            if attention.window:
                seen = seen & (Tensor.arange(rows) > limits - attention.window)
            scores = seen.where(scores, float("-inf"))
        weights = scores.contiguous().softmax(-1).contiguous()  # fused into the product it would be computed once for every entry of a head
        return (weights @ v).permute(2, 0, 1, 3).reshape(T, n_heads * head_dim).contiguous()

    def _attend_rows(self, q: Tensor, arena_k: Tensor, arena_v: Tensor, at: RowPositions, attention: Attention) -> Tensor:
        (T, n_heads, head_dim), (_, n_kv_heads, rows, _) = q.shape, arena_k.shape
        k, v = (floats_of(arena[at.slots]).unsqueeze(2) for arena in (arena_k, arena_v))  # (T, KvH, 1, rows, Hd)
        heads = q.reshape(T, n_kv_heads, n_heads // n_kv_heads, 1, head_dim)
        scores = capped((heads * attention.scale_of(head_dim)) @ k.transpose(-1, -2), attention.softcap)  # (T, KvH, H / KvH, 1, rows)
        last = at.positions.maximum(0).reshape(T, 1)  # a row that is not used sees one position, which is finite
        seen = Tensor.arange(rows) <= last
        if attention.window:
            seen = seen & (Tensor.arange(rows) > last - attention.window)
        scores = seen.reshape(T, 1, 1, 1, rows).where(scores, float("-inf"))
        return (scores.contiguous().softmax(-1).contiguous() @ v).reshape(T, n_heads * head_dim).contiguous()

    def linear_residual(
        self,
        x: Tensor,
        weight: LaneWeight | DenseWeight,
        residual: Tensor,
        out: Tensor | None = None,
        bias: Tensor | None = None,
        scale: float = 1.0,
    ) -> Tensor:
        product = weight.matmul(x) if bias is None else weight.matmul(x) + bias
        return into(out, residual + (product if scale == 1 else product * scale))

    def norm_gated(
        self,
        x: Tensor,
        norm: Tensor | None,
        eps: float,
        w_gate: LaneWeight | DenseWeight,
        w_up: LaneWeight | DenseWeight,
        activation: str = "silu",
        bias: Tensor | None = None,
        then: LaneWeight | DenseWeight | None = None,
    ) -> Tensor:
        h = x if norm is None else rms_norm(x, norm, eps).contiguous()
        return gated(w_gate.matmul(h).contiguous(), w_up.matmul(h), activation, bias)

    def norm_linear(
        self, x: Tensor, norm: Tensor | None, eps: float, weight: LaneWeight | DenseWeight, scale: float = 1.0, softcap: float = 0.0
    ) -> Tensor:
        result = weight.matmul(x if norm is None else rms_norm(x, norm, eps).contiguous()).contiguous()
        return result if (scale, softcap) == (1, 0) else capped(result * scale, softcap).contiguous()

    def experts_residual(
        self,
        x: Tensor,
        norm: Tensor | None,
        eps: float,
        router: LaneWeight | DenseWeight,
        w_gate: LaneWeight | DenseWeight,
        w_up: LaneWeight | DenseWeight,
        w_down: LaneWeight | DenseWeight,
        routing: Routing,
        residual: Tensor,
        out: Tensor | None = None,
        activation: str = "silu",
    ) -> Tensor:
        """Every expert is computed, and those that are not used count nothing: an oracle, not a way to be fast."""
        h = x if norm is None else rms_norm(x, norm, eps).contiguous()
        shares = expert_shares(router.matmul(h).contiguous(), routing).contiguous()  # (T, E)
        T, E, hidden = x.shape[0], routing.experts, w_gate.shape[0] // routing.experts
        units = gated(w_gate.matmul(h).contiguous(), w_up.matmul(h), activation, None).reshape(T, E, hidden)
        weighted = (units * shares.unsqueeze(-1)).permute(1, 0, 2)  # (E, T, F)
        products = weighted.contiguous() @ w_down.to_tensor().reshape(E, -1, hidden).transpose(1, 2)  # (E, T, D)
        return into(out, residual + products.sum(0))

    def norm_residual(self, x: Tensor, norm: Tensor, eps: float, residual: Tensor, out: Tensor | None = None) -> Tensor:
        return into(out, residual + rms_norm(x, norm, eps))

    def layer_norm(self, x: Tensor, norm: Tensor, bias: Tensor | None, eps: float) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        result = rms_norm(centred, norm, eps)
        return (result if bias is None else result + bias).contiguous()
