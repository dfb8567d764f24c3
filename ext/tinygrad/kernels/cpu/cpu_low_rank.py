"""What a CPU kernel needs to change its products by low ranks (c/low_rank.h): macros, and buffers in the order of its parameters."""

from collections.abc import Sequence

from tinygrad import Tensor, dtypes

from ext.tinygrad.kernels.low_rank import AdaptedWeight
from ext.tinygrad.kernels.protocol import PackedWeight
from ext.tinygrad.kernels.row_changes import MOST_ROWS, RowAdaptedWeight

# of kernels whose weights are as they are packed
NO_CHANGES: dict[str, object] = {
    "CHANGES": "",
    **{f"NARROW_{i}": "" for i in range(2)},
    **{f"ADAPT_{i}(acc, tile)": "" for i in range(2)},
    "NARROW_PARTS": "",
    "ADAPT_PART(part, acc, tile)": "",
}


def ranks(weights: Sequence[PackedWeight]) -> list[int]:
    return [w.rank if isinstance(w, AdaptedWeight | RowAdaptedWeight) else 0 for w in weights]


def element(weights: Sequence[PackedWeight]) -> str:
    """C's name of what the changes are made of."""
    of_all = {w.a.dtype for w in weights if isinstance(w, AdaptedWeight)} | {w.dtype for w in by_row(weights)}
    (dtype,) = of_all
    return "f16" if dtype == dtypes.float16 else "f32"


def by_row(weights: Sequence[PackedWeight]) -> list[RowAdaptedWeight]:
    """Those whose change is another for each row; then no weight has one that is the same for all."""
    return [w for w in weights if isinstance(w, RowAdaptedWeight)]


def change_macros(weights: Sequence[PackedWeight], T: int) -> dict[str, object]:
    """For a kernel over these weights, at most three; one token's narrow row is summed by the kernel, of more it is read (narrow.c)."""
    if not any(found := ranks(weights)):
        return {}
    if by_row(weights):
        return _row_macros(weights, found, T)
    one, in_all = T == 1, sum(found)
    parameters = [] if one else ["const f32* restrict narrowed"]
    declared, computed, adapted = list[str](), list[str](), list[str]()
    for i, (weight, rank) in enumerate(zip(weights, found, strict=True)):
        if not isinstance(weight, AdaptedWeight):
            declared, computed, adapted = [*declared, ""], [*computed, ""], [*adapted, ""]
            continue
        parameters += [f"const CHANGE* restrict a{i}"] * one + [f"const CHANGE* restrict b{i}"]
        parameters += [f"const f32* restrict gain{i}"] * (weight.gain is not None)
        declared.append(f"f32 narrow{i}[{rank}];" if one else f"const f32* narrow{i} = narrowed + {sum(found[:i])};")
        computed.append(f"narrow_row(x, norm, EPS, COLS, a{i}, {rank}, narrow{i});" if one else "")
        gain = f"gain{i}" if weight.gain is not None else "((const f32*)0)"
        adapted.append(f"ADAPT(acc, tile, {rank}, b{i}, {gain}, narrow{i}, {in_all}, {weight.shape[0]})")
    macros: dict[str, object] = {"CHANGE": element(weights), "CHANGES": " ".join(f"{p}," for p in parameters)}
    for i in range(len(weights)):
        macros |= {f"NARROW_{i}": f"{declared[i]} {computed[i]}", f"ADAPT_{i}(acc, tile)": adapted[i]}
    # a task has the rows of one or two of three: it sums for those alone
    begin = "int ready = -1;" if one else ""
    sums = " else ".join(f"if (part == {i}) {{ {c} }}" for i, c in enumerate(computed))
    macros["NARROW_PARTS"] = " ".join([*declared, begin])
    first = f"if (ready != part) {{ {sums} ready = part; }} " if one else ""
    macros["ADAPT_PART(part, acc, tile)"] = first + " else ".join(f"if (part == {i}) {{ {a} }}" for i, a in enumerate(adapted))
    return macros


def _row_macros(weights: Sequence[PackedWeight], found: Sequence[int], T: int) -> dict[str, object]:
    """The same where each row has its own change."""
    assert 1 < T <= MOST_ROWS, "changes by row are for passes over rows"
    parameters, macros = ["const f32* restrict narrowed", "const i32* restrict sets"], dict[str, object]()
    declared, adapted = list[str](), list[str]()
    for i, (weight, rank) in enumerate(zip(weights, found, strict=True)):
        parameters += [f"const change_place* restrict changes{i}"] if rank else []
        declared.append(f"const f32* narrow{i} = narrowed + {sum(found[:i])};" if rank else "")
        rows = weight.shape[0]
        adapted.append(f"ADAPT_ROWS(acc, tile, changes{i}, sets, narrow{i}, {sum(found)}, {rows})" if rank else "")
        macros |= {f"NARROW_{i}": declared[i], f"ADAPT_{i}(acc, tile)": adapted[i]}
    parts = " else ".join(f"if (part == {i}) {{ {a} }}" for i, a in enumerate(adapted))
    macros |= {"NARROW_PARTS": " ".join(declared), "ADAPT_PART(part, acc, tile)": parts}
    return macros | {"CHANGE": element(weights), "CHANGES": " ".join(f"{p}," for p in parameters)}


def change_tensors(weights: Sequence[PackedWeight], narrowed: Tensor | None) -> list[Tensor]:
    """The buffers of the parameters `CHANGES`; `narrowed` is what narrow.c gave, of one token None."""
    tensors = [] if narrowed is None else [narrowed]
    if found := by_row(weights):
        return [*tensors, found[0].sets, *(w.table for w in found)]
    for weight in weights:
        if isinstance(weight, AdaptedWeight):
            tensors += weight.own if narrowed is None else weight.own[1:]
    return tensors
