"""Where a pass's time goes, kernel by kernel, with the bytes or multiplications that each had to do."""

from typing import Any

from app.models.llama import Llama
from app.models.llama.kv_cache import KVCache

REPLAYS = 15


def of_pass(llama: Llama, cache: KVCache, T: int, start_pos: int) -> list[dict[str, Any]]:
    """One row for each kind of kernel, in the order of the pass: name, count, microseconds, and GB/s (T = 1) or GMAC/s (T > 1).

    Weights and what attention sees count, activations do not. Empty where the device replays no native graphs.
    """
    times = llama.engine.profile(T, start_pos, cache, REPLAYS)
    if times is None:
        return []
    rows: dict[str, dict[str, Any]] = {}
    head = max((i for i, time in enumerate(times) if time.name == "linear"), default=-1) if T == 1 else -1
    for i, time in enumerate(times):
        name = "head" if i == head else time.name
        row = rows.setdefault(name, {"kernel": name, "count": 0, "microseconds": 0.0})
        row["count"] += 1
        row["microseconds"] += time.ns / 1000
    work = _work(llama, T, start_pos)
    unit, scale = ("gb_per_second", 1e3) if T == 1 else ("gmac_per_second", 1e3)
    for name, row in rows.items():
        if name in work and row["microseconds"]:
            row[unit] = round(work[name] / row["microseconds"] / scale, 1)
        row["microseconds"] = round(row["microseconds"], 1)
    return list(rows.values())


def _work(llama: Llama, T: int, start_pos: int) -> dict[str, float]:
    """Bytes read (T = 1) or multiplications (T > 1) of all kernels of a name, over all layers."""
    c, model = llama.config, llama.model
    if T == 1:
        positions = (start_pos + 1) * 2 * c.n_kv_heads * c.head_dim * 2.0 * c.n_layers
        return {
            "qkv": sum(w.nbytes for b in model.blocks for w in (b.wq, b.wk, b.wv)),
            "attend_decode": positions,
            "linear": sum(w.nbytes for b in model.blocks for w in (b.wo, b.w2)),
            "gated": sum(w.nbytes for b in model.blocks for w in (b.w1, b.w3)),
            "head": model.output.nbytes,
        }
    q = c.n_heads * c.head_dim
    seen = T * start_pos + T * (T + 1) / 2
    per_layer = {
        "qkv": T * c.dim * (q + 2 * c.n_kv_heads * c.head_dim),
        "attend_prefill": 2 * q * seen,
        "linear": T * (c.dim * q + c.hidden_dim * c.dim),
        "gated": 2 * T * c.hidden_dim * c.dim,
    }
    return {name: float(macs * c.n_layers) for name, macs in per_layer.items()}
