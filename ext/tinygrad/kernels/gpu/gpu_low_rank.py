"""What a GPU kernel needs to change its products by low ranks (c/low_rank.h): macros, and buffers in the order of its parameters."""

from collections.abc import Sequence

from tinygrad import Tensor, dtypes

from ext.tinygrad.kernels.gpu.gpu_source import launch, plain_source
from ext.tinygrad.kernels.gpu.operands import activation_bytes, few, floats
from ext.tinygrad.kernels.gpu.tuning import Tuning
from ext.tinygrad.kernels.low_rank import AdaptedWeight
from ext.tinygrad.kernels.protocol import PackedWeight

MOST_TOKENS = 8  # of a few that a work-group of narrow.c takes
SIDE, TOKENS = 4, 4  # rows of A and tokens that it takes of many: each is loaded once for the others


def changes(weights: Sequence[PackedWeight]) -> dict[int, AdaptedWeight]:
    """Those of a product's weights that have a change, by their places."""
    return {i: weight for i, weight in enumerate(weights) if isinstance(weight, AdaptedWeight)}


def half(weights: Sequence[PackedWeight]) -> int:
    """Are A and B float16, not float32?"""
    (dtype,) = {change.a.dtype for change in changes(weights).values()}
    return int(dtype == dtypes.float16)


def change_macros(weights: Sequence[PackedWeight]) -> dict[str, object]:
    """Of a product over these weights, for c/product.h."""
    found = changes(weights)
    if not found:
        return {}
    ranks = sum(change.rank for change in found.values())
    parameters, branches, first = ["const GLOBAL float* RESTRICT narrowed"], list[str](), 0
    for i, change in found.items():
        parameters.append(f"const GLOBAL CHANGE* RESTRICT b{i}")
        if change.gain is not None:
            parameters.append(f"const GLOBAL float* RESTRICT gain{i}")
        narrow, gain = f"narrowed + (long)(token) * {ranks} + {first}, {ranks}", "1.0f" if change.gain is None else f"gain{i}[row]"
        branches.append(f"if ((part) == {i}) change_row(sums, SHARE_OF_ROW, count, b{i}, {change.rank}, {narrow}, {gain}, row);")
        first += change.rank
    return {
        "ADAPTED": 1,
        "CHANGE_HALF": half(weights),
        "CHANGES": "".join(f", {parameter}" for parameter in parameters),
        "CHANGE_ROW(part, sums, token, count, row)": " else ".join(branches),
    }


def change_tensors(tuning: Tuning, x: Tensor, norm: Tensor | None, eps: float, weights: Sequence[PackedWeight]) -> list[Tensor]:
    """The buffers of the parameters `CHANGES`: A x of all changes, then each one's B and gain."""
    found = changes(weights)
    if not found:
        return []
    return [narrowed(tuning, x, norm, eps, weights), *(tensor for change in found.values() for tensor in change.own[1:])]


def narrowed(tuning: Tuning, x: Tensor, norm: Tensor | None, eps: float, weights: Sequence[PackedWeight]) -> Tensor:
    """A x of the changes of these weights, float32 (T, ranks together); x is floats, or activations, which begin with them."""
    found, T, cols = changes(weights), x.shape[0], weights[0].shape[1]
    ranks = sum(change.rank for change in found.values())
    side, tokens = (1, min(T, MOST_TOKENS)) if few(T) else (SIDE, TOKENS)
    rows, first = list[str](), 0
    for i, change in found.items():
        rows.append(f"a{i} + (long)((first) - {first}) * COLS")
        first += change.rank
        rows[-1] = f"(first) < {first} ? {rows[-1]} : " if first < ranks else rows[-1]
    macros: dict[str, object] = {
        "TOKENS": T,
        "COLS": cols,
        "X_WORDS": activation_bytes(cols) // 4 if x.dtype == dtypes.uint8 else cols,
        "RANKS": ranks,
        "SIDE": side,
        "TILE_TOKENS": tokens,
        "NORM": int(norm is not None),
        "EPS": float(eps),
        "CHANGE_HALF": half(weights),
        "A_PARAMS": ", ".join(f"const GLOBAL CHANGE* RESTRICT a{i}" for i in found),
        "A_ROWS(first)": f"({''.join(rows)})",
        "ITEMS": tuning.plain_items,
    }
    inputs = [x, *([] if norm is None else [norm]), *(change.a for change in found.values())]
    source, groups = plain_source(tuning, "narrow.c", "narrow", macros), [-(-T // tokens), ranks // side]
    return launch(source, "narrow", groups, tuning.plain_items, [floats(x, T, ranks)], inputs)[0]
