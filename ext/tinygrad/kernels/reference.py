"""The plain-Tensor kernel set: runs on any device that tinygrad reaches, and is the oracle for every fused kernel."""

from tinygrad import Tensor, UOp, dtypes

from ext.tinygrad.kernels.lanes import DenseWeight, LaneWeight, pack
from ext.tinygrad.kernels.matrix import QuantMatrix


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


def store(cache: Tensor, new: Tensor, start_pos: int | UOp) -> Tensor:
    """Write new (T, n, Hd) into cache (n, rows, Hd) at start_pos; what is returned is the cache after the write."""
    T = new.shape[0]
    window = cache[:, start_pos : start_pos + T]
    return Tensor(cache.uop.after(window.uop.store(new.transpose(0, 1).cast(cache.dtype).uop)))


class ReferenceKernels:
    """Every operation in Tensor algebra; each ends in a buffer, so that layers share the few kernels that tinygrad generates."""

    name = "tinygrad"
    layout = ""

    def pack(self, matrix: QuantMatrix, device: str) -> LaneWeight | DenseWeight:
        return pack(matrix, device)

    def embed(self, ids: Tensor, weight: LaneWeight | DenseWeight) -> Tensor:
        return weight.rows_at(ids).contiguous()

    def norm_qkv(
        self,
        x: Tensor,
        norm: Tensor,
        eps: float,
        wq: LaneWeight | DenseWeight,
        wk: LaneWeight | DenseWeight,
        wv: LaneWeight | DenseWeight,
        rope: Tensor,
        cache_k: Tensor,
        cache_v: Tensor,
        start_pos: int | UOp,
    ) -> tuple[Tensor, Tensor, Tensor]:
        T, (n_kv_heads, _, head_dim) = x.shape[0], cache_k.shape
        h = rms_norm(x, norm, eps).contiguous()  # (T, D)
        angles = rope[start_pos : start_pos + T]  # (T, Hd / 2, 2)
        q = rotate(wq.matmul(h).contiguous().reshape(T, -1, head_dim), angles).contiguous()  # (T, H, Hd)
        k = rotate(wk.matmul(h).contiguous().reshape(T, n_kv_heads, head_dim), angles)  # (T, KvH, Hd)
        v = wv.matmul(h).contiguous().reshape(T, n_kv_heads, head_dim)
        return q, store(cache_k, k, start_pos), store(cache_v, v, start_pos)

    def attend(self, q: Tensor, cache_k: Tensor, cache_v: Tensor, start_pos: int | UOp) -> Tensor:
        (T, n_heads, head_dim), (n_kv_heads, rows, _) = q.shape, cache_k.shape
        if T == 1:
            # one token sees everything that is cached: the range is symbolic and nothing needs a mask
            cache_k, cache_v = cache_k[:, : start_pos + 1], cache_v[:, : start_pos + 1]
        k = cache_k.cast(dtypes.float32).unsqueeze(1)  # (KvH, 1, S, Hd)
        v = cache_v.cast(dtypes.float32).unsqueeze(1)
        heads = q.reshape(T, n_kv_heads, n_heads // n_kv_heads, head_dim).permute(1, 2, 0, 3)  # (KvH, H / KvH, T, Hd)
        scores = (heads * head_dim**-0.5) @ k.transpose(-1, -2)  # (KvH, H / KvH, T, S)
        if T > 1:
            limits = Tensor.arange(T).reshape(T, 1) + start_pos  # a Variable is no shape here: the mask spans all rows
            scores = (Tensor.arange(rows) <= limits).where(scores, float("-inf"))
        weights = scores.contiguous().softmax(-1).contiguous()  # fused into the product it would be computed once for every entry of a head
        return (weights @ v).permute(2, 0, 1, 3).reshape(T, n_heads * head_dim).contiguous()

    def linear_residual(self, x: Tensor, weight: LaneWeight | DenseWeight, residual: Tensor, out: Tensor | None = None) -> Tensor:
        result = (residual + weight.matmul(x)).contiguous()
        return result if out is None else Tensor(out.uop.after(out.uop.store(result.uop)))

    def norm_gated(self, x: Tensor, norm: Tensor, eps: float, w_gate: LaneWeight | DenseWeight, w_up: LaneWeight | DenseWeight) -> Tensor:
        h = rms_norm(x, norm, eps).contiguous()
        return (w_gate.matmul(h).contiguous().silu() * w_up.matmul(h)).contiguous()

    def norm_linear(self, x: Tensor, norm: Tensor, eps: float, weight: LaneWeight | DenseWeight) -> Tensor:
        return weight.matmul(rms_norm(x, norm, eps).contiguous()).contiguous()
