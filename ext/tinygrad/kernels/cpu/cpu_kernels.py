"""The CPU's kernel set: each operation of the protocol as one C kernel for decode (T = 1), or two for prefill (activations first)."""

import math
from collections.abc import Mapping, Sequence

from tinygrad import Tensor, UOp, dtypes
from tinygrad.dtype import DType

from ext.tinygrad.graph.pool import thread_count
from ext.tinygrad.graph.task_ranges import declare
from ext.tinygrad.kernels.cpu.cpu_low_rank import by_row, change_macros, change_tensors, element, ranks
from ext.tinygrad.kernels.cpu.cpu_source import experts_source, launch, matmul_source, missing_instructions, plain_source, streams
from ext.tinygrad.kernels.cpu.cpu_tasks import MAX_TASKS, even, prepare_tasks, product_reads, product_tasks
from ext.tinygrad.kernels.cpu.weight_reading import FAR, PLAIN, faster_readings
from ext.tinygrad.kernels.low_rank import AdaptedWeight, packed
from ext.tinygrad.kernels.matrix import QuantMatrix
from ext.tinygrad.kernels.packed.formats import GROUP, LAYOUT, Format
from ext.tinygrad.kernels.packed.packed_matrix import PackedMatrix
from ext.tinygrad.kernels.protocol import FULL_ATTENTION, Attention, HeadTransform, OneTokenProduct, Position, Routing, RowPositions
from ext.tinygrad.kernels.quantised_rows import BLOCK, QUANTISED, head_dim_of
from ext.tinygrad.kernels.reference import ReferenceKernels, store_heads

DECODE_CHUNK = 32  # positions of a step of the online softmax
QUANTISED_CHUNK = 64  # and of one over 8-bit blocks, whose scales and weights are prepared step by step
PREFILL_CHUNK = 32
PREFILL_ROWS = 48  # query rows (tokens x heads of a group) of an attention task: three AVX-512 vectors or six AVX2 ones
ROW_SIZES = (2, 4, 6, 8, 12, 16)  # rows of a pass over several conversations; no more than MOST_ROWS of c/tile.h
CHUNKS = (512, 256, 128, 32)
MOST_SPANS = 8  # of a prefill pass; the bytes of 14 spans are those of some number of tokens that are no multiple of one (_tokens)
GROUP_SIZES = (16, 4, 1)  # pairs of an expert multiplied at once: no more than MOST_ROWS of c/tile.h, so that each is summed as one alone
ATTEND_TASKS = 12  # tasks of decode attention at least; a long cache is split between the tasks of a kv head
TASKS_A_THREAD = 4  # kv heads of all tokens for each thread that are tasks enough: each puts its splits together itself


class CPUKernels:
    """int8 activations (per 32 columns) against packed integer weights, float32 against float ones; see formats.py."""

    name = "cpu"
    layout = LAYOUT
    changes_alike = True
    changes_by_row = True
    # how one token's products read the weights of a format, where `tune` found a faster way than the default
    readings: Mapping[str, str] = {}
    pass_tokens = 3.0  # what a pass costs beside its tokens, in tokens: 8, 32 and 128 take 4.4, 14.8 and 60.7 ms in one run
    span_tokens = 128  # of a prefill pass that are multiplied at once: the sums of more would leave the L1 cache
    _launch = staticmethod(launch)  # OpenCL drivers on the CPU run the same sources, launched otherwise

    @property
    def chunks(self) -> tuple[int, ...]:
        """Tokens that a prefill pass takes: threads that wait for each other wait less where a pass has more tasks."""
        return CHUNKS if thread_count() > 1 else CHUNKS[CHUNKS.index(self.span_tokens) :]

    @staticmethod
    def available() -> str | None:
        """Why these kernels cannot run here, in words for a user; None where they can."""
        return missing_instructions()

    def pack(self, matrix: QuantMatrix, device: str) -> PackedMatrix:
        return PackedMatrix.pack(matrix, device)

    def tune(self, products: Sequence[OneTokenProduct], seconds: float | None = None) -> None:
        """Choose `readings` by what this processor was measured to do; no sum changes with it."""
        self.readings = faster_readings(self, products, seconds)

    def row_sizes(self, head_dim: int) -> tuple[int, ...]:
        return () if head_dim % GROUP else ROW_SIZES

    def embed(self, ids: Tensor, weight: PackedMatrix, scale: float = 1.0) -> Tensor:
        T, (rows, cols) = ids.shape[0], weight.shape
        tasks = max(1, T // 8)
        macros = {"TOKENS": T, "COLS": cols, "OUT_ROWS": rows, "TASKS": tasks, "NORM": 0, **_scaled(scale), "RANK": 0, "GAIN": 0}
        if isinstance(weight, AdaptedWeight):
            macros |= {"RANK": weight.rank, "GAIN": int(weight.gain is not None), "CHANGE": element([weight])}
        source = matmul_source("embed.c", "embed", [packed(weight).format], macros)
        out = Tensor.empty(T, cols, dtype=dtypes.float32, device=ids.device)
        return self._launch(source, "embed", tasks, [out], [ids, *weight.tensors])[0]

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
        T, (*_, kv_heads, rows, _), head_dim = x.shape[0], cache_k.shape, head_dim_of(cache_k)
        bias = [heads.bias] if heads is not None and heads.bias is not None else []
        if head_dim % GROUP:  # a vector of rows would straddle heads (OpenLLaMA 3B has 100)
            q, k, v = (self.norm_linear(x, norm, eps, w) for w in (wq, wk, wv))
            return store_heads(q, k, v, rope, cache_k, cache_v, start_pos, heads)
        weights = [wq, wk, wv]
        macros = {
            "Q_HEADS": (n_heads := wq.shape[0] // head_dim),
            "KV_HEADS": kv_heads,
            "HEAD_DIM": head_dim,
            "CACHE_ROWS": rows,
            **_element(cache_k.dtype),
            "BIAS": len(bias),
            "ROWS": len(places := _places(start_pos)),
            # two streams half a matrix apart would cut a block of 8-bit integers in two
            "ONE_STREAM": int(cache_k.dtype == QUANTISED and any(n * head_dim % (2 * BLOCK) for n in (n_heads, kv_heads))),
        }
        q = Tensor.empty(T, n_heads, head_dim, dtype=dtypes.float32, device=x.device)
        if heads is not None and heads.norm is not None:  # the norm needs whole heads: they are finished by a kernel of its own
            projected = [self.norm_linear(x, norm, eps, w) for w in weights]
            macros |= {"TOKENS": T, "TASKS": (tasks := max(1, T // 8)), "EPS": float(heads.eps), "PER_HEAD": int(heads.per_head)}
            source = plain_source("heads", ["cache.h", "place.h", "rotate.h", "heads.c"], macros)
            inputs = [*projected, rope, heads.norm, *bias, *places]
            out = self._launch(source, "heads", tasks, [q, cache_k, cache_v], inputs, _variable(start_pos))
        else:
            macros["PROJECT(part, tile, rows, acc)"] = _project([packed(w).format for w in weights])
            out = self._matmul("qkv", x, norm, eps, weights, macros, [q, cache_k, cache_v], [rope, *bias], start_pos)
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
        (T, heads, head_dim), (*_, kv_heads, rows, _) = q.shape, cache_k.shape
        if head_dim % GROUP:
            return ReferenceKernels().attend(q, cache_k, cache_v, start_pos, attention)
        macros: dict[str, object] = {
            "TOKENS": T,
            "HEADS": heads // kv_heads,
            "KV_HEADS": kv_heads,
            "HEAD_DIM": head_dim,
            "CACHE_ROWS": rows,
            **_element(cache_k.dtype),
            "SCALE": attention.scale_of(head_dim) * (1.0 if attention.softcap else math.log2(math.e)),
            "WINDOW": attention.window,
            "ROWS": len(places := _places(start_pos)),
            **_capped(attention.softcap),
        }
        if T > 1 and not places:
            out, integers = self._for_product(T, heads * head_dim, then if head_dim % 32 == 0 else None, q.device)
            block = min(T, max(1, PREFILL_ROWS // (heads // kv_heads)))
            macros |= {"BLOCK": block, "CHUNK": PREFILL_CHUNK, "INTEGER_OUT": int(integers), "SPAN_TOKENS": T // self._spans(T)}
            source = plain_source("attend_prefill", ["cache.h", "activations.h", "attention.h", "attend_prefill.c"], macros)
            return self._launch(source, "attend_prefill", kv_heads * -(-T // block), [out], [q, cache_k, cache_v], start_pos)[0]
        out = Tensor.empty(T, heads * head_dim, dtype=dtypes.float32, device=q.device)
        splits = self._attend_splits(kv_heads)
        apart = splits > 1 and T * kv_heads < TASKS_A_THREAD * thread_count()  # to the last bit the same
        macros |= {"SPLITS": splits, "APART": int(apart), "CHUNK": QUANTISED_CHUNK if cache_k.dtype == QUANTISED else DECODE_CHUNK}
        macros["FETCH_LEVEL"] = 2 if T == 1 and PLAIN in self.readings.values() else 3
        steps = "decode_blocks.h" if cache_k.dtype == QUANTISED else "decode_floats.h"
        source = plain_source("attend_decode", ["cache.h", "attention.h", "place.h", steps, "splits.h", "attend_decode.c"], macros)
        inputs, variable = [q, cache_k, cache_v, *places], _variable(start_pos)
        if not apart:
            return self._launch(source, "attend_decode", T * kv_heads, [out], inputs, variable)[0]
        partial = Tensor.empty(T * heads * splits * (head_dim + 2), dtype=dtypes.float32, device=q.device)
        (partial,) = self._launch(source, "attend_decode", T * kv_heads * splits, [partial], inputs, variable)
        tasks = max(1, T // 4)
        source = plain_source("attend_combine", ["cache.h", "attention.h", "splits.h", "attend_combine.c"], macros | {"TASKS": tasks})
        return self._launch(source, "attend_combine", tasks, [out], [partial])[0]

    @staticmethod
    def _attend_splits(kv_heads: int) -> int:
        """Stretches of the positions that are attended to by tasks of their own."""
        return -(-ATTEND_TASKS // kv_heads)

    def linear_residual(
        self,
        x: Tensor,
        weight: PackedMatrix,
        residual: Tensor,
        out: Tensor | None = None,
        bias: Tensor | None = None,
        scale: float = 1.0,
    ) -> Tensor:
        T = residual.shape[0]
        if out is None:
            out = Tensor.empty(T, weight.shape[0], dtype=dtypes.float32, device=x.device)
        macros = {"RESIDUAL": 1, "BIAS": int(bias is not None), **_scaled(scale), **_capped(0.0)}
        more = [residual] if bias is None else [residual, bias]
        return self._matmul("linear", x, None, 0.0, [weight], macros, [out], more)[0]

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
        T = x.shape[0]
        out, integers = self._for_product(T, w_gate.shape[0], then, x.device)
        weights, more = [w_gate, w_up], [] if bias is None else [bias]
        macros: dict[str, object] = {"ACTIVATION": activation, "BIAS": len(more), "INTEGER_OUT": int(integers)}
        return self._matmul("gated", x, norm, eps, weights, macros, [out], more)[0]

    def norm_linear(
        self, x: Tensor, norm: Tensor | None, eps: float, weight: PackedMatrix, scale: float = 1.0, softcap: float = 0.0
    ) -> Tensor:
        T = self._tokens(x, weight)
        out = Tensor.empty(T, weight.shape[0], dtype=dtypes.float32, device=x.device)
        macros = {"RESIDUAL": 0, "BIAS": 0, **_scaled(scale), **_capped(softcap)}
        return self._matmul("linear", x, norm, eps, [weight], macros, [out])[0]

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
        (T, cols), E = x.shape, routing.experts
        hidden = w_gate.shape[0] // E
        assert hidden % GROUP == 0 and cols % GROUP == 0, "experts would share a group of rows"
        ids, shares, places = self._route(self.norm_linear(x, norm, eps, router), routing)
        units = Tensor.empty(T * routing.used, hidden, dtype=dtypes.float32, device=x.device)
        if out is None:
            out = Tensor.empty(T, cols, dtype=dtypes.float32, device=x.device)
        gated: dict[str, object] = {"GATED": 1, "ACTIVATION": activation}
        units = self._experts(x, norm, eps, [w_gate, w_up], routing, gated, units, places, [ids, places])
        return self._experts(units, None, 0.0, [w_down], routing, {"GATED": 0}, out, places, [ids, places, shares, residual])

    def _route(self, logits: Tensor, routing: Routing) -> list[Tensor]:
        """Experts and their shares (T, used), and the places where pairs of a token and an expert are multiplied: c/route.c."""
        T = logits.shape[0]
        ids = Tensor.empty(T, routing.used, dtype=dtypes.int32, device=logits.device)
        shares = Tensor.empty(T, routing.used, dtype=dtypes.float32, device=logits.device)
        places = Tensor.empty(3, T * routing.used, dtype=dtypes.int32, device=logits.device)
        macros = {"TOKENS": T, "EXPERTS": routing.experts, "USED": routing.used, "NORMALIZE": int(routing.normalize)}
        macros |= {"PAIRS": T * routing.used, "GROUP_SIZES": ", ".join(map(str, _group_sizes(T)))}
        return self._launch(plain_source("route", ["route.c"], macros), "route", 1, [ids, shares, places], [logits])

    def _experts(
        self,
        x: Tensor,
        norm: Tensor | None,
        eps: float,
        weights: Sequence[PackedMatrix],
        routing: Routing,
        macros: dict[str, object],
        out: Tensor,
        places: Tensor,
        more: Sequence[Tensor],
    ) -> Tensor:
        """rows.c and experts.c: pairs' activations, and their products with the experts that are used."""
        pairs, cols, rows = places.shape[1], weights[0].shape[1], out.shape[1]
        formats, norms, inputs = [w.format for w in weights], [] if norm is None else [norm], list[Tensor]()
        macros = macros | {"COLS": cols, "USED": routing.used, "PAIRS": pairs, "EPS": float(eps), "NORM": len(norms)}
        places_read = 1 if x.shape[0] == 1 else pairs  # one token's activations serve all of its experts
        for floating in sorted({bool(form.element) for form in formats}):
            tasks, nbytes = max(1, places_read // 8), _place_bytes(cols, floating)
            of_rows = {"TASKS": tasks, "FLOAT_INPUT": int(floating), "GATHERED": macros["GATED"], "PLACE_BYTES": f"{nbytes}L"}
            of_rows |= {"ROWS": places_read}
            source = plain_source("rows", ["activations.h", "rows.c"], macros | of_rows)
            to = Tensor.empty(places_read * nbytes, dtype=dtypes.uint8, device=x.device)
            inputs += self._launch(source, "rows", tasks, [to], [x, *norms, places])
        tasks = even(min(MAX_TASKS, rows // GROUP))
        macros |= {"OUT_ROWS": rows, "TASKS": tasks}
        macros |= {f"EXPERT_BYTES_{i}": f"{form.nbytes(rows, cols)}L" for i, form in enumerate(formats)}
        by_place = [_place_bytes(cols, bool(form.element)) if places_read == pairs else 0 for form in formats]
        source = experts_source(formats, _group_sizes(pairs // routing.used), by_place, macros)
        return self._launch(source, "experts", tasks, [out], [*inputs, *(w.data for w in weights), *more])[0]

    def norm_residual(self, x: Tensor, norm: Tensor, eps: float, residual: Tensor, out: Tensor | None = None) -> Tensor:
        return self._normed(x, norm, eps, {"RESIDUAL": 1, "CENTRED": 0, "BIAS": 0}, [residual], out)

    def layer_norm(self, x: Tensor, norm: Tensor, bias: Tensor | None, eps: float) -> Tensor:
        more = [] if bias is None else [bias]
        return self._normed(x, norm, eps, {"RESIDUAL": 0, "CENTRED": 1, "BIAS": len(more)}, more)

    def _normed(
        self, x: Tensor, norm: Tensor, eps: float, macros: dict[str, object], more: Sequence[Tensor], out: Tensor | None = None
    ) -> Tensor:
        T, cols = x.shape
        tasks = max(1, T // 8)
        source = plain_source("normed", ["normed.c"], {"TOKENS": T, "COLS": cols, "TASKS": tasks, "EPS": float(eps), **macros})
        if out is None:
            out = Tensor.empty(T, cols, dtype=dtypes.float32, device=x.device)
        return self._launch(source, "normed", tasks, [out], [x, norm, *more])[0]

    def _matmul(
        self,
        name: str,
        x: Tensor,
        norm: Tensor | None,
        eps: float,
        weights: Sequence[PackedMatrix],
        macros: dict[str, object],
        outputs: Sequence[Tensor],
        more: Sequence[Tensor] = (),
        start_pos: Position | None = None,
    ) -> list[Tensor]:
        """Kernel <name>.c over x (T, cols), or its blocks of integers, and weights with as many columns."""
        T, cols = self._tokens(x, weights[0]), weights[0].shape[1]
        adapted = any(ranks(weights))
        spans = 1 if adapted or _places(start_pos) else self._spans(T)
        shared: dict[str, object] = {"TOKENS": T // spans, "SPANS": spans, "COLS": cols, "NORM": int(norm is not None), "EPS": float(eps)}
        formats = [packed(w).format for w in weights]
        norms = [] if norm is None else [norm]
        narrowed = self._narrow(x, norms, weights, shared) if T > 1 and adapted else None
        changes = change_macros(weights, T)
        if T == 1:
            inputs = [x, *norms]
        else:
            inputs = []
            if any(f.bits for f in formats):
                inputs.append(x if x.dtype == dtypes.uint8 else self._prepare(x, norms, shared | {"FLOAT_INPUT": 0}))
            if any(f.element for f in formats):
                inputs.append(self._prepare(x, norms, shared | {"FLOAT_INPUT": 1}) if norms else x)
        tasks = product_tasks(T // spans, weights)
        macros = shared | macros | changes | {"OUT_ROWS": weights[0].shape[0], "TASKS": tasks}
        ways = {self.readings.get(form.name, "") for form in formats} if T == 1 else set()
        way = ways.pop() if len(ways) == 1 else ""
        macros |= {"PLAIN_READ": int(way == PLAIN), "FAR_READ": int(way == FAR)}
        one_stream = T > 1 or bool(way) or any(f.element for f in formats) or bool(macros.get("ONE_STREAM"))
        pieces, argument = 1 if one_stream else streams(), len(outputs) + len(inputs)
        reads = product_reads(weights, argument, name == "gated", pieces) if T <= ROW_SIZES[-1] else []
        source = matmul_source(f"{name}.c", name, formats, macros)
        if spans == 1:  # tasks in a row may be of two spans
            source = declare(reads) + source
        inputs += [*(packed(w).data for w in weights), *more, *change_tensors(weights, narrowed), *_places(start_pos)]
        return self._launch(source, name, spans * tasks, outputs, inputs, _variable(start_pos))

    def _narrow(self, x: Tensor, norms: Sequence[Tensor], weights: Sequence[PackedMatrix], macros: dict[str, object]) -> Tensor:
        """A x of the changes of these weights, float32 (T, ranks together)."""
        T, found = x.shape[0], (ranks(weights) + [0, 0])[:3]
        tasks = max(1, T // 8)
        macros = macros | {"TASKS": tasks, "CHANGE": element(weights), **{f"RANK_{i}": rank for i, rank in enumerate(found)}}
        changing = by_row(weights)
        file = "narrow_rows.c" if changing else "narrow.c"
        source = plain_source("narrow", ["activations.h", "tile.h", "low_rank.h", file], macros)
        out = Tensor.empty(T, sum(found), dtype=dtypes.float32, device=x.device)
        own = [changing[0].sets, *(w.table for w in changing)] if changing else [w.a for w in weights if isinstance(w, AdaptedWeight)]
        return self._launch(source, "narrow", tasks, [out], [x, *norms, *own])[0]

    def _prepare(self, x: Tensor, norms: Sequence[Tensor], macros: dict[str, object]) -> Tensor:
        """Activations of a prefill: int8 blocks (see c/activations.h), or normed float32 rows."""
        T, cols = x.shape
        tasks = prepare_tasks(T)
        spans = self._spans(T) if macros["SPANS"] != 1 else 1
        size = T * cols * 4 if macros["FLOAT_INPUT"] else spans * activation_bytes(T // spans, cols)
        source = plain_source("prepare", ["activations.h", "prepare.c"], macros | {"TASKS": tasks})
        out = Tensor.empty(size, dtype=dtypes.uint8, device=x.device)
        return self._launch(source, "prepare", tasks, [out], [x, *norms])[0]

    def _spans(self, T: int) -> int:
        """Spans of tokens that a prefill pass is cut into, each with tasks and blocks of activations of its own."""
        return T // self.span_tokens if T % self.span_tokens == 0 and T <= MOST_SPANS * self.span_tokens else 1

    def _for_product(self, T: int, cols: int, then: PackedMatrix | None, device: str) -> tuple[Tensor, bool]:
        """Where to leave what a product with `then` reads, and whether as blocks of integers (c/activations.h): of several tokens, since
        of one each task quantises the row itself; not for a weight that adapters change, which reads floats as well."""
        integers = T > 1 and cols % 32 == 0 and isinstance(then, PackedMatrix) and bool(then.format.bits)
        spans = self._spans(T)
        shape, dtype = ((spans * activation_bytes(T // spans, cols),), dtypes.uint8) if integers else ((T, cols), dtypes.float32)
        return Tensor.empty(*shape, dtype=dtype, device=device), integers

    def _tokens(self, x: Tensor, weight: PackedMatrix) -> int:
        """How many tokens x has: rows, or blocks of integers that _for_product gave room for."""
        n = int(x.shape[0])
        if x.dtype != dtypes.uint8:
            return n
        spans, rest = divmod(n, activation_bytes(self.span_tokens, weight.shape[1]))
        return spans * self.span_tokens if rest == 0 and spans <= MOST_SPANS else (n // (weight.shape[1] // 32) - LINE_BYTES) // TOKEN_BYTES


TOKEN_BYTES, LINE_BYTES = 52, 64  # of a block of activations as integers: each token's, and, of several tokens, one cache line more


def activation_bytes(T: int, cols: int) -> int:
    """Of T tokens as integers: ACT_BLOCK of c/activations.h."""
    return cols // 32 * (TOKEN_BYTES * T + LINE_BYTES * (T > 1))


def _place_bytes(cols: int, floating: bool) -> int:
    """That a pair of a token and an expert takes of the input of c/experts.c, whichever group it is in."""
    return 4 * cols if floating else max(activation_bytes(size, cols) // size for size in GROUP_SIZES)


def _group_sizes(T: int) -> list[int]:
    """Pairs of one expert that are multiplied at once, of T tokens."""
    return [size for size in GROUP_SIZES if size <= T]


def _project(formats: Sequence[Format]) -> str:
    """C that runs the tile of projection `part`; alike formats share their code."""
    q, k, v = formats
    if q == k == v:
        return "TILE_0(part == 0 ? wq : part == 1 ? wk : wv, tile, rows, INPUT_0, acc)"
    branches = [f"if (part == {i}) TILE_{i}({w}, tile, rows, INPUT_{i}, acc)" for i, w in enumerate(("wq", "wk"))]
    return f"{'; else '.join(branches)}; else TILE_2(wv, tile, rows, INPUT_2, acc)"


def _places(start_pos: Position | None) -> list[Tensor]:
    """What a kernel reads of where its tokens stand (c/place.h), if it is more than a variable."""
    return [start_pos.table] if isinstance(start_pos, RowPositions) else []


def _variable(start_pos: Position | None) -> int | UOp | None:
    return None if isinstance(start_pos, RowPositions) else start_pos


def _scaled(scale: float) -> dict[str, object]:
    return {"SCALED": int(scale != 1), "SCALE": float(scale)}


def _capped(softcap: float) -> dict[str, object]:
    return {"CAPPED": int(softcap != 0), "SOFTCAP": float(softcap)}


def _element(dtype: DType) -> dict[str, object]:
    """What c/cache.h is to know of a cache's elements."""
    assert dtype in (dtypes.float16, dtypes.float32, QUANTISED), f"no cache of {dtype}"
    return {"CACHE": {dtypes.float16: "f16", dtypes.float32: "f32"}.get(dtype, "u8"), "QUANTISED": int(dtype == QUANTISED)}
