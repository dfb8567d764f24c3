"""The sources of the kernels that a model's passes launch, collected without a device."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from tinygrad import Tensor, dtypes

from ext.tinygrad.kernels.gpu import gpu_experts, gpu_kernels, gpu_low_rank
from ext.tinygrad.kernels.gpu.gpu_kernels import GPUKernels
from ext.tinygrad.kernels.gpu.operands import few
from ext.tinygrad.kernels.gpu.tuning import Tuning
from ext.tinygrad.kernels.low_rank import AdaptedWeight
from ext.tinygrad.kernels.packed.formats import FORMATS, GROUP, Format
from ext.tinygrad.kernels.packed.packed_matrix import PackedMatrix
from ext.tinygrad.kernels.protocol import Attention, HeadTransform, Routing, RowPositions
from ext.tinygrad.kernels.quantised_rows import QUANTISED, row_elements

Sources = dict[str, tuple[str, str]]  # by what they serve: (source, entry)


@contextmanager
def recorded(into: list[tuple[str, str]]) -> Iterator[None]:
    """Within it, launches are noted down and nothing runs."""

    def launch(source: str, entry: str, groups: object, items: int, outputs: list[Tensor], *rest: object) -> list[Tensor]:
        into.append((source, entry))
        return list(outputs)

    with (
        patch.object(gpu_kernels, "launch", launch),
        patch.object(gpu_experts, "launch", launch),
        patch.object(gpu_low_rank, "launch", launch),
    ):
        yield


def weight(form: Format, rows: int, cols: int) -> PackedMatrix:
    """A weight of this shape; its bytes are never made."""
    return PackedMatrix((rows, cols), form, Tensor.empty(form.nbytes(rows, cols), dtype=dtypes.uint8, device="CPU"))


def adapted(base: PackedMatrix, rank: int, gain: bool) -> AdaptedWeight:
    """With a low-rank change of this rank."""
    (rows, cols), element = base.shape, dtypes.float32 if base.format.element == "f32" else dtypes.float16
    a = Tensor.empty(rank, cols, dtype=element, device="CPU")
    b = Tensor.empty(-(-rows // GROUP), rank, GROUP, dtype=element, device="CPU")
    return AdaptedWeight(base, a, b, Tensor.empty(rows, device="CPU") if gain else None)


def sources(tuning: Tuning, form: Format, T: int, dim: int, hidden: int, heads: int, kv_heads: int, vocab: int, rows: int) -> Sources:
    """Of a pass over T tokens of a LLaMA of this shape, all matrices in one format, `rows` positions of a half-precision cache.

    A few tokens are those of several conversations, in an arena of four."""
    found: Sources = {}
    device, head_dim, set_ = "CPU", dim // heads, GPUKernels(tuning)
    set_._counters[device] = Tensor.empty(1, dtype=dtypes.int32, device=device)  # which has nothing to launch on

    def empty(*shape: int, dtype: object = dtypes.float32) -> Tensor:
        return Tensor.empty(*shape, dtype=dtype, device=device)

    x, norm = empty(T, dim), empty(dim)
    several = T > 1 and few(T)
    at = RowPositions(empty(2, T, dtype=dtypes.int32)) if several else 0
    caches = [empty(*[4] * several, kv_heads, rows, head_dim, dtype=dtypes.float16) for _ in range(2)]
    blocks = [empty(*[4] * several, kv_heads, rows, row_elements(head_dim, QUANTISED), dtype=QUANTISED) for _ in range(2)]
    down = weight(form, dim, hidden)

    def note(name: str, call: object) -> object:
        launched: list[tuple[str, str]] = []
        with recorded(launched):
            result = call()  # type: ignore[operator]
        found.update({f"{name} {entry}": (source, entry) for source, entry in launched})
        return result

    note("embed", lambda: set_.embed(empty(T, dtype=dtypes.int32), weight(form, vocab, dim)))
    wq, wk, wv = (weight(form, n * head_dim, dim) for n in (heads, kv_heads, kv_heads))
    note("qkv", lambda: set_.norm_qkv(x, norm, 1e-5, wq, wk, wv, empty(rows, head_dim // 2, 2), *caches, at))
    attended = note("attend", lambda: set_.attend(empty(T, heads, head_dim), *caches, at))
    note("wo", lambda: set_.linear_residual(attended, weight(form, dim, dim), x))  # type: ignore[arg-type]
    h = note("gated", lambda: set_.norm_gated(x, norm, 1e-5, weight(form, hidden, dim), weight(form, hidden, dim)))
    note("down", lambda: set_.linear_residual(h, down, x))  # type: ignore[arg-type]
    heads_norm = HeadTransform(empty((heads + 2 * kv_heads) * head_dim), empty(2 * head_dim), True, 1e-5)
    note("heads", lambda: set_.norm_qkv(x, norm, 1e-5, wq, wk, wv, empty(rows, head_dim // 2, 2), *caches, at, heads_norm))
    note("window", lambda: set_.attend(empty(T, heads, head_dim), *caches, at, Attention(window=512, softcap=30.0)))
    rope = empty(rows, head_dim // 2, 2)
    note("blocks qkv", lambda: set_.norm_qkv(x, norm, 1e-5, wq, wk, wv, rope, *blocks, at))
    note("blocks heads", lambda: set_.norm_qkv(x, norm, 1e-5, wq, wk, wv, rope, *blocks, at, heads_norm))
    note("blocks attend", lambda: set_.attend(empty(T, heads, head_dim), *blocks, at))
    mixed = [weight(form, n * 8, cols) for n, cols in ((hidden // 2, dim), (hidden // 2, dim), (dim, hidden // 2))]
    note("mixture", lambda: set_.experts_residual(x, norm, 1e-5, weight(form, 8, dim), *mixed, Routing(8, 2, True), x))  # type: ignore[arg-type]
    changed = [adapted(w, rank, rank == 16) for w, rank in ((wq, 8), (wk, 16), (wv, 8))]
    note("adapted qkv", lambda: set_.norm_qkv(x, norm, 1e-5, *changed, empty(rows, head_dim // 2, 2), *caches, at))  # type: ignore[arg-type]
    gate = adapted(weight(form, hidden, dim), 8, False)
    note("adapted gate", lambda: set_.norm_gated(x, norm, 1e-5, gate, weight(form, hidden, dim)))  # type: ignore[arg-type]
    note("adapted down", lambda: set_.linear_residual(h, adapted(down, 64, True), x))  # type: ignore[arg-type]
    note("head", lambda: set_.norm_linear(x, norm, 1e-5, weight(form, vocab, dim)))
    note("top", lambda: set_.largest(empty(1, vocab)))
    return found


PACKED = [form for form in FORMATS.values() if not form.as_stored]
