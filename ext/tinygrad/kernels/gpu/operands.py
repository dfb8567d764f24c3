"""What the kernels for GPUs are handed: buffers for their results, and constants that describe what they read."""

from tinygrad import Tensor, UOp, dtypes

from ext.tinygrad.kernels.protocol import Position, RowPositions
from ext.tinygrad.kernels.quantised_rows import QUANTISED, head_dim_of

ROW_SIZES = (2, 4, 8, 16)  # tokens of a pass over several conversations


def floats(like: Tensor, *shape: int) -> Tensor:
    return Tensor.empty(*shape, dtype=dtypes.float32, device=like.device)


def few(T: int) -> bool:
    """Is each of so many tokens computed as one alone would be?"""
    return T == 1 or T in ROW_SIZES


def place_macros(start_pos: Position | None) -> dict[str, object]:
    """For c/place.h."""
    return {"ROW_TABLE": 1} if isinstance(start_pos, RowPositions) else {}


def table(start_pos: Position | None) -> list[Tensor]:
    return [start_pos.table] if isinstance(start_pos, RowPositions) else []


def variable(start_pos: Position | None) -> int | UOp | None:
    return None if isinstance(start_pos, RowPositions) else start_pos


def activations(like: Tensor, T: int, cols: int) -> Tensor:
    """A buffer of activations, see c/activations.h."""
    return Tensor.empty(T, activation_bytes(cols), dtype=dtypes.uint8, device=like.device)


def activation_bytes(cols: int) -> int:
    return 4 * cols if cols % 32 else 5 * cols + cols // 8


def cache_macros(cache: Tensor) -> dict[str, object]:
    """For c/cache.h."""
    assert cache.dtype in (dtypes.float16, dtypes.float32, QUANTISED), f"no cache of {cache.dtype}"
    kind = {"CACHE_HALF": int(cache.dtype == dtypes.float16), "QUANTISED": int(cache.dtype == QUANTISED)}
    return kind | {"CACHE_ROWS": cache.shape[-2], "HEAD_DIM": head_dim_of(cache)}
