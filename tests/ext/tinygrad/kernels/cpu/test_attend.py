"""Attention against float64 NumPy: every head_dim and group size, both cache types, positions from the first to the last."""

import numpy as np
import pytest
from tinygrad import Tensor, UOp

from ext.tinygrad.kernels.cpu.cpu_kernels import CPUKernels
from tests.reference import oracles

KERNELS = CPUKernels()
ROWS = 150


def check(
    T: int,
    start_pos: int | UOp,
    at: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    cache: type[np.floating],
    spread: float = 2.0,
    tolerance: float = 1e-5,
) -> None:
    rng = np.random.default_rng(at + T)
    q = (rng.standard_normal((T, heads, head_dim)) * spread).astype(np.float32)
    k, v = (rng.standard_normal((kv_heads, ROWS, head_dim)).astype(cache) for _ in range(2))
    k[:, at + T :] = v[:, at + T :] = np.nan  # what lies beyond must not be looked at
    out = KERNELS.attend(*(Tensor(a, device="CPU").realize() for a in (q, k, v)), start_pos).numpy()
    oracles.assert_close(out, oracles.attend(q, k, v, at), tolerance=tolerance)


@pytest.mark.parametrize("start_pos", [0, 1, 30, 31, 32, 33, 63, 100, ROWS - 1])
def test_decode_at_every_kind_of_position(start_pos: int) -> None:
    check(1, start_pos, start_pos, 9, 3, 64, np.float16)


@pytest.mark.parametrize("T, start_pos", [(2, 0), (5, 31), (16, 0), (17, 60), (70, 0), (70, ROWS - 70), (33, 32)])
def test_prefill_at_every_kind_of_position(T: int, start_pos: int) -> None:
    check(T, start_pos, start_pos, 9, 3, 64, np.float16)


@pytest.mark.parametrize("head_dim, heads, kv_heads", [(32, 4, 4), (80, 8, 2), (96, 8, 1), (128, 3, 1), (64, 20, 20), (64, 5, 1)])
@pytest.mark.parametrize("T", [1, 20])
def test_every_shape_of_head(head_dim: int, heads: int, kv_heads: int, T: int) -> None:
    check(T, 45, 45, heads, kv_heads, head_dim, np.float32 if head_dim in (32, 80) else np.float16)


@pytest.mark.parametrize("T", [1, 20])
def test_a_position_may_be_a_variable(T: int) -> None:
    for at in (3, 77):
        check(T, UOp.variable("start_pos", 0, ROWS - 1).bind(at), at, 9, 3, 64, np.float16)


@pytest.mark.parametrize("T", [1, 20])
def test_scores_of_any_size_stay_finite(T: int) -> None:
    check(T, 64, 64, 4, 2, 32, np.float32, spread=200.0, tolerance=1e-3)  # scores of 1000 have few digits left
