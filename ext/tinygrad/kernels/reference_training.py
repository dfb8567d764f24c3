"""Training's operations in plain tensors: they run on any device that tinygrad reaches, and are the oracle for the C kernels."""

import math

from tinygrad import Tensor, dtypes

from ext.tinygrad.kernels.reference import DenseWeight, LaneWeight, gated, into, rms_norm, rotate
from ext.tinygrad.kernels.training_kernels import AdapterPlace, Dropout


class ReferenceTraining:
    """A weight becomes floats within the product that reads it, never a copy that stays."""

    name = "tinygrad"

    def linear(self, x: Tensor, weight: LaneWeight | DenseWeight, out: Tensor | None = None, residual: Tensor | None = None) -> Tensor:
        product = weight.matmul(x)
        return into(out, product if residual is None else product + residual)

    def linear_backward(self, dy: Tensor, weight: LaneWeight | DenseWeight, into: Tensor | None = None) -> Tensor:
        return _add(into, dy @ weight.to_tensor())

    def low_rank(
        self, x: Tensor, params: Tensor, adapter: AdapterPlace, y: Tensor, low: Tensor, dropout: Dropout | None
    ) -> tuple[Tensor, Tensor]:
        down, up = _matrix(params, adapter.down, adapter.rank, x.shape[1]), _matrix(params, adapter.up, adapter.rank, y.shape[1])
        low = into(low, adapter.scale * (dropped(x, dropout) @ down.T))
        return into(y, y + low @ up), low

    def low_rank_backward(
        self, dy: Tensor, params: Tensor, adapter: AdapterPlace, dx: Tensor, dropout: Dropout | None
    ) -> tuple[Tensor, Tensor]:
        down, up = _matrix(params, adapter.down, adapter.rank, dx.shape[1]), _matrix(params, adapter.up, adapter.rank, dy.shape[1])
        low = (adapter.scale * (dy @ up.T)).contiguous()
        return into(dx, dx + dropped(low @ down, dropout)), low

    def outer(self, low: Tensor, x: Tensor, gradient: Tensor, at: int, dropout: Dropout | None = None) -> Tensor:
        (rank, cols), whole = (low.shape[1], x.shape[1]), gradient.shape[0]
        part = (low.T @ dropped(x, dropout)).reshape(-1).pad((at, whole - at - rank * cols))
        return into(gradient, gradient + part)

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        return rms_norm(x, weight, eps).contiguous()

    def norm_backward(
        self, dy: Tensor, x: Tensor, weight: Tensor, eps: float, residual: Tensor | None, out: Tensor | None = None
    ) -> Tensor:
        r, g = (x.square().mean(-1, keepdim=True) + eps).rsqrt(), dy * weight
        dx = r * g - x * r * r * r * (g * x).mean(-1, keepdim=True)
        return into(out, dx if residual is None else dx + residual)

    def turn(self, q: Tensor, k: Tensor, positions: Tensor, rope: Tensor) -> tuple[Tensor, Tensor]:
        angles = rope[positions].contiguous()
        return into(q, rotate(q, angles)), into(k, rotate(k, angles))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, first: Tensor, scale: float, out: Tensor, stats: Tensor) -> tuple[Tensor, Tensor]:
        scores = _scores(q, k, first, scale)  # (H, T, T)
        best = scores.max(-1, keepdim=True)
        powers = (scores - best).exp()
        total = powers.sum(-1, keepdim=True)
        values = _spread(v, q.shape[1])  # (H, T, Hd)
        attended = ((powers / total) @ values).transpose(0, 1)
        return into(out, attended), into(stats, best.cat(1 / total, dim=-1).transpose(0, 1))

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
        T, heads, head_dim = q.shape
        kv_heads = k.shape[1]
        grad = dout.reshape(T, heads, head_dim).transpose(0, 1)  # (H, T, Hd)
        kept = stats.transpose(0, 1)  # (H, T, 2)
        p = (_scores(q, k, first, scale) - kept[..., :1]).exp() * kept[..., 1:]  # (H, T, T)
        slopes = grad @ _spread(v, heads).transpose(1, 2)
        mean = (grad * out.reshape(T, heads, head_dim).transpose(0, 1)).sum(-1, keepdim=True)
        ds = (p * (slopes - mean) * scale).contiguous()
        dq = (ds @ _spread(k, heads)).transpose(0, 1)
        dk, dv = ds.transpose(1, 2) @ q.transpose(0, 1), p.contiguous().transpose(1, 2) @ grad  # (H, T, Hd)

        def summed(x: Tensor) -> Tensor:
            return x.reshape(kv_heads, heads // kv_heads, T, head_dim).sum(1).transpose(0, 1)

        angles = rope[positions].contiguous()
        back = Tensor.stack(angles[..., 0], -angles[..., 1], dim=-1)  # a turn's transpose is the turn the other way
        return tuple(
            x.reshape(T, -1).contiguous() for x in (rotate(dq.contiguous(), back), rotate(summed(dk).contiguous(), back), summed(dv))
        )

    def gated(self, gate: Tensor, up: Tensor, activation: str = "silu") -> Tensor:
        return gated(gate, up, activation, None)

    def gated_backward(self, dh: Tensor, gate: Tensor, up: Tensor, activation: str = "silu") -> tuple[Tensor, Tensor]:
        z, rise = gate, gate.ones_like()
        if activation == "gelu":
            constant = 2 * (2 / math.pi) ** 0.5
            z, rise = constant * (gate + 0.044715 * gate * gate * gate), constant * (1 + 3 * 0.044715 * gate * gate)
        s = z.sigmoid()
        return (dh * up * s * (1 + gate * (1 - s) * rise)).contiguous(), (dh * gate * s).contiguous()

    def rows(self, x: Tensor, ids: Tensor) -> Tensor:
        return x[ids].contiguous()

    def add_rows(self, x: Tensor, ids: Tensor, out: Tensor) -> Tensor:
        places = Tensor.arange(out.shape[0]).reshape(-1, 1) == ids.reshape(1, -1)  # (T, n)
        return into(out, out + places.cast(dtypes.float32) @ x)

    def cross_entropy(self, logits: Tensor, targets: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
        best = logits.max(-1, keepdim=True)
        powers = (logits - best).exp()
        total = powers.sum(-1, keepdim=True)
        at = Tensor.arange(logits.shape[1]).reshape(1, -1) == targets.reshape(-1, 1)
        parts = best.cat(total, (logits * at).sum(-1, keepdim=True), dim=-1).contiguous()
        return into(logits, shares.reshape(-1, 1) * (powers / total - at)), parts


def dropped(x: Tensor, dropout: Dropout | None) -> Tensor:
    """x with the entries that c/training/dropout.h drops at 0, and the others made larger."""
    if dropout is None:
        return x

    def hashed(n: Tensor) -> Tensor:
        n = n ^ (n >> 16)
        n = n * 0x7FEB352D
        n = n ^ (n >> 15)
        n = n * 0x846CA68B
        return n ^ (n >> 16)

    seed = hashed(dropout.seed ^ hashed(dropout.layer * 16 + dropout.slot))
    places = Tensor.arange(x.shape[0] * x.shape[1], dtype=dtypes.uint32).reshape(*x.shape)
    chance = (hashed(places * 0x9E3779B9 + seed) >> 8).cast(dtypes.float32) * 2.0**-24
    return (chance < dropout.rate).where(0.0, x / (1 - dropout.rate))


def _matrix(flat: Tensor, at: int, rows: int, cols: int) -> Tensor:
    return flat[at : at + rows * cols].reshape(rows, cols)


def _add(target: Tensor | None, values: Tensor) -> Tensor:
    return into(target, values if target is None else target + values)


def _spread(x: Tensor, heads: int) -> Tensor:
    """Keys or values (T, KvH, Hd) for each query head, (H, T, Hd)."""
    return x.transpose(0, 1).repeat_interleave(heads // x.shape[1], dim=0)


def _scores(q: Tensor, k: Tensor, first: Tensor, scale: float) -> Tensor:
    """(H, T, T), what may not be seen far below the others."""
    T, heads, _ = q.shape
    at = Tensor.arange(T)
    seen = (at.reshape(1, T) >= first.reshape(T, 1)) & (at.reshape(1, T) <= at.reshape(T, 1))
    return seen.where(q.transpose(0, 1) @ _spread(k, heads).transpose(1, 2) * scale, -1e30)
