"""Training's operations in C; see ext/tinygrad/kernels/training_kernels.py. Sums run in one order, whatever the number of threads."""

from collections.abc import Sequence

from tinygrad import Tensor, dtypes

from ext.tinygrad.kernels.cpu.cpu_kernels import CPUKernels
from ext.tinygrad.kernels.cpu.cpu_source import matmul_source, plain_source
from ext.tinygrad.kernels.cpu.cpu_tasks import MAX_TASKS
from ext.tinygrad.kernels.packed.formats import GROUP
from ext.tinygrad.kernels.packed.packed_matrix import PackedMatrix
from ext.tinygrad.kernels.reference_training import ReferenceTraining
from ext.tinygrad.kernels.training_kernels import ROW_TOKENS, AdapterPlace, Dropout

ATTEND_SPLITS = 2  # tasks of attention for each head
PANEL_STRIDE = 272  # floats from column to column of a panel of 256 rows: not a power of two, which would fall into few sets of a cache


class CPUTraining:
    """Float gradients through the weights that CPUKernels packed: a panel of them at a time becomes floats."""

    name = "cpu"

    def __init__(self, kernels: CPUKernels):
        self._kernels = kernels
        self._plain = ReferenceTraining()  # for heads that a vector of rows would straddle

    def linear(self, x: Tensor, weight: PackedMatrix, out: Tensor | None = None, residual: Tensor | None = None) -> Tensor:
        if residual is not None:
            return self._kernels.linear_residual(x, weight, residual, out)
        made = self._kernels.norm_linear(x, None, 0.0, weight)
        return made if out is None else Tensor(out.uop.after(out.uop.store(made.uop)))

    def linear_backward(self, dy: Tensor, weight: PackedMatrix, into: Tensor | None = None) -> Tensor:
        T, (rows, cols) = dy.shape[0], weight.shape
        assert T % ROW_TOKENS == 0, f"{T} tokens are no multiple of {ROW_TOKENS}"
        padded, form = -(-rows // GROUP) * GROUP, weight.format
        split = min(4, padded // GROUP)
        macros: dict[str, object] = {"TOKENS": T, "OUT_ROWS": rows, "SPLIT": split}
        tiles = Tensor.empty(T * padded, dtype=dtypes.float32, device=dy.device)
        (tiles,) = self._run("tiles", ["tiles.h", "tiles.c"], T // 32 * split, [tiles], [dy], macros)
        panel = "((r) * 32 + (c))" if form.as_stored else f"((c) * {PANEL_STRIDE} + (r))"
        # blocks of 32 columns are what tasks share out: as few of them as keep two to four threads busy
        tasks = min(-(-cols // 32), MAX_TASKS)
        macros |= {"COLS": cols, "TASKS": tasks, "ADD": int(into is not None), "PANEL(c, r)": panel, "PANEL_STRIDE": PANEL_STRIDE}
        macros |= {"COLUMNS": f"columns_{form.name}", "EPS": 0.0, "NORM": 0}
        source = matmul_source("training/linear_backward.c", "linear_backward", [form], macros)
        out = into if into is not None else Tensor.empty(T, cols, dtype=dtypes.float32, device=dy.device)
        return self._kernels._launch(source, "linear_backward", tasks, [out], [tiles, weight.data])[0]

    def low_rank(
        self, x: Tensor, params: Tensor, adapter: AdapterPlace, y: Tensor, low: Tensor, dropout: Dropout | None
    ) -> tuple[Tensor, Tensor]:
        return self._low_rank(x, params, adapter.down, adapter.up, adapter, y, low, dropout, 1)

    def low_rank_backward(
        self, dy: Tensor, params: Tensor, adapter: AdapterPlace, dx: Tensor, dropout: Dropout | None
    ) -> tuple[Tensor, Tensor]:
        low = Tensor.empty(dy.shape[0], adapter.rank, dtype=dtypes.float32, device=dy.device)
        return self._low_rank(dy, params, adapter.up, adapter.down, adapter, dx, low, dropout, 2)

    def _low_rank(
        self,
        x: Tensor,
        params: Tensor,
        down: int,
        up: int,
        adapter: AdapterPlace,
        y: Tensor,
        low: Tensor,
        dropout: Dropout | None,
        where: int,
    ) -> tuple[Tensor, Tensor]:
        (T, cols), tasks = x.shape, _tasks(x)
        macros = {"COLS": cols, "OUT": y.shape[1], "RANK": adapter.rank, "DOWN_AT": down, "UP_AT": up, "SCALE": float(adapter.scale)}
        macros |= {"TOKENS": T, "TASKS": tasks, **_dropout(dropout, where)}
        out = self._run("low_rank", ["dropout.h", "low_rank.c"], tasks, [y, low], [x, params, *_seeds(dropout)], macros)
        return out[0], out[1]

    def outer(self, low: Tensor, x: Tensor, gradient: Tensor, at: int, dropout: Dropout | None = None) -> Tensor:
        (T, cols), rank = x.shape, low.shape[1]
        tasks = max(1, min(MAX_TASKS, cols // 96))
        macros = {"TOKENS": T, "COLS": cols, "RANK": rank, "AT": at, "TASKS": tasks, **_dropout(dropout, 1)}
        return self._run("outer", ["dropout.h", "outer.c"], tasks, [gradient], [low, x, *_seeds(dropout)], macros)[0]

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        return self._by_rows("norm", ["../activations.h", "norm.c"], x, [x, weight], {"EPS": float(eps)})

    def norm_backward(
        self, dy: Tensor, x: Tensor, weight: Tensor, eps: float, residual: Tensor | None, out: Tensor | None = None
    ) -> Tensor:
        inputs = [dy, x, weight] if residual is None else [dy, x, weight, residual]
        macros: dict[str, object] = {"EPS": float(eps), "RESIDUAL": int(residual is not None)}
        return self._by_rows("norm_backward", ["../activations.h", "norm_backward.c"], x, inputs, macros, out)

    def turn(self, q: Tensor, k: Tensor, positions: Tensor, rope: Tensor) -> tuple[Tensor, Tensor]:
        if not _whole_heads(q):
            return self._plain.turn(q, k, positions, rope)
        out = self._run("turned", TURNED, _tasks(q), [q, k], [positions, rope], _heads(q, k) | {"BACK": 0, "TASKS": _tasks(q)})
        return out[0], out[1]

    def attend(self, q: Tensor, k: Tensor, v: Tensor, first: Tensor, scale: float, out: Tensor, stats: Tensor) -> tuple[Tensor, Tensor]:
        if not _whole_heads(q):
            return self._plain.attend(q, k, v, first, scale, out, stats)
        macros = _heads(q, k) | {"SCALE": float(scale), "SPLITS": ATTEND_SPLITS}
        found = self._run("attend", ["attend.c"], q.shape[1] * ATTEND_SPLITS, [out, stats], [q, k, v, first], macros)
        return found[0], found[1]

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
        if not _whole_heads(q):
            return self._plain.attend_backward(dout, out, stats, q, k, v, first, positions, rope, scale)
        (T, heads, head_dim), kv_heads, device = q.shape, k.shape[1], q.device

        def empty(n: int) -> Tensor:
            return Tensor.empty(T, n * head_dim, dtype=dtypes.float32, device=device)

        macros = _heads(q, k) | {"SCALE": float(scale)}
        parts = [empty(heads) for _ in range(3)]
        parts = self._run("attend_backward", ["attend_backward.c"], heads, parts, [dout, out, stats, q, k, v, first], macros)
        macros = _heads(q, k) | {"BACK": 1, "TASKS": _tasks(q)}
        results = [parts[0], empty(kv_heads), empty(kv_heads)]
        found = self._run("turned", TURNED, _tasks(q), results, [*parts[1:], positions, rope], macros)
        return found[0], found[1], found[2]

    def gated(self, gate: Tensor, up: Tensor, activation: str = "silu") -> Tensor:
        return self._by_rows("gated", ["gated.c"], gate, [gate, up], _units(gate) | {"ACTIVATION": activation})

    def gated_backward(self, dh: Tensor, gate: Tensor, up: Tensor, activation: str = "silu") -> tuple[Tensor, Tensor]:
        outputs = [Tensor.empty(*gate.shape, dtype=dtypes.float32, device=gate.device) for _ in range(2)]
        macros = _units(gate) | {"TASKS": _tasks(gate), "GELU": int(activation == "gelu")}
        out = self._run("gated_backward", ["gated_backward.c"], _tasks(gate), outputs, [dh, gate, up], macros)
        return out[0], out[1]

    def rows(self, x: Tensor, ids: Tensor) -> Tensor:
        out = Tensor.empty(ids.shape[0], x.shape[1], dtype=dtypes.float32, device=x.device)
        return self._run("rows", ["rows.c"], 1, [out], [x, ids], {"TOKENS": ids.shape[0], "COLS": x.shape[1], "SCATTER": 0, "TASKS": 1})[0]

    def add_rows(self, x: Tensor, ids: Tensor, out: Tensor) -> Tensor:
        return self._run("rows", ["rows.c"], 1, [out], [x, ids], {"TOKENS": ids.shape[0], "COLS": x.shape[1], "SCATTER": 1, "TASKS": 1})[0]

    def cross_entropy(self, logits: Tensor, targets: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
        T, cols = logits.shape
        parts = Tensor.empty(T, 3, dtype=dtypes.float32, device=logits.device)
        macros = {"TOKENS": T, "COLS": cols, "TASKS": _tasks(logits)}
        out = self._run("cross_entropy", ["cross_entropy.c"], _tasks(logits), [logits, parts], [targets, shares], macros)
        return out[0], out[1]

    def _by_rows(
        self,
        name: str,
        files: Sequence[str],
        like: Tensor,
        inputs: Sequence[Tensor],
        macros: dict[str, object],
        out: Tensor | None = None,
    ) -> Tensor:
        """A kernel whose tasks share out rows, with a result of the shape of `like`."""
        if out is None:
            out = Tensor.empty(*like.shape, dtype=dtypes.float32, device=like.device)
        macros = {"TOKENS": like.shape[0], "COLS": like.shape[1], "TASKS": _tasks(like), **macros}
        return self._run(name, files, _tasks(like), [out], inputs, macros)[0]

    def _run(
        self, name: str, files: Sequence[str], tasks: int, outputs: Sequence[Tensor], inputs: Sequence[Tensor], macros: dict[str, object]
    ) -> list[Tensor]:
        source = plain_source(f"training_{name}", [f"training/{file}" for file in ("wide.h", *files)], macros)
        return self._kernels._launch(source, f"training_{name}", tasks, outputs, inputs)


TURNED = ["../rotate.h", "turned.c"]


def _tasks(x: Tensor) -> int:
    """Tasks of some rows each, four at least."""
    return max(1, min(16, x.shape[0] // 8))


def _units(x: Tensor) -> dict[str, object]:
    return {"UNITS": x.shape[0] * x.shape[1] // 16}


def _whole_heads(q: Tensor) -> bool:
    """Does a head fill vectors?"""
    return q.shape[2] % GROUP == 0


def _heads(q: Tensor, k: Tensor) -> dict[str, object]:
    (T, heads, head_dim), kv_heads = q.shape, k.shape[1]
    return {"TOKENS": T, "HEADS": heads // kv_heads, "KV_HEADS": kv_heads, "HEAD_DIM": head_dim, "CACHE": "f32"}


def _dropout(dropout: Dropout | None, where: int) -> dict[str, object]:
    return {"DROPOUT": 0} if dropout is None else {"DROPOUT": where, "RATE": float(dropout.rate), "SLOT": dropout.slot}


def _seeds(dropout: Dropout | None) -> list[Tensor]:
    return [] if dropout is None else [dropout.seed, dropout.layer]
