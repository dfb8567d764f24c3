"""What a kernel leaves as integers for the next product gives what that product makes of floats, to the last bit."""

import numpy as np
import pytest
from tinygrad import Tensor, dtypes

from ext.tinygrad.kernels.cpu.cpu_kernels import CPUKernels
from ext.tinygrad.kernels.low_rank import AdaptedWeight
from ext.tinygrad.kernels.row_changes import RowAdaptedWeight
from tests.reference import oracles

KERNELS, EPS = CPUKernels(), 1e-5
TOKENS = [2, 3, 5, 16, 33, 130]


def put(values: np.ndarray) -> Tensor:
    return Tensor(values, device="CPU").realize()


def floats(rng: np.random.Generator, *shape: int) -> Tensor:
    return put(rng.standard_normal(shape).astype(np.float32) * 3)


@pytest.mark.sweep
@pytest.mark.parametrize("T", TOKENS)
@pytest.mark.parametrize("type", ["Q4_1", "Q8_0", "Q6_K"])
def test_a_gated_unit_before_a_product(type: str, T: int) -> None:
    rng = np.random.default_rng(T)
    gate, up = (KERNELS.pack(oracles.random_matrix(rng, "Q4_1", 512, 96), "CPU") for _ in range(2))
    down = KERNELS.pack(oracles.random_matrix(rng, type, 75, 512), "CPU")
    x, norm, bias, residual = floats(rng, T, 96), floats(rng, 96), floats(rng, 1024), floats(rng, T, 75)
    for activation, more in (("silu", None), ("gelu", bias)):
        plain, integers = (KERNELS.norm_gated(x, norm, EPS, gate, up, activation, more, then) for then in (None, down))
        assert (plain.dtype, integers.dtype) == (dtypes.float32, dtypes.uint8)
        found, expected = (KERNELS.linear_residual(h, down, residual).numpy() for h in (integers, plain))
        np.testing.assert_array_equal(found, expected)
        found, expected = (KERNELS.norm_linear(h, None, 0.0, down).numpy() for h in (integers, plain))
        np.testing.assert_array_equal(found, expected)


@pytest.mark.sweep
@pytest.mark.parametrize("head_dim, heads, kv_heads", [(64, 9, 3), (32, 4, 4), (128, 3, 1), (256, 2, 1)])
@pytest.mark.parametrize("T", TOKENS)
def test_attention_before_a_product(T: int, head_dim: int, heads: int, kv_heads: int) -> None:
    rng = np.random.default_rng(T)
    wo = KERNELS.pack(oracles.random_matrix(rng, "Q4_0", 64, heads * head_dim), "CPU")
    q, residual = floats(rng, T, heads, head_dim), floats(rng, T, 64)
    k, v = (put(rng.standard_normal((kv_heads, 150, head_dim)).astype(np.float16)) for _ in range(2))
    plain, integers = (KERNELS.attend(q, k, v, 7, then=then) for then in (None, wo))
    assert (plain.dtype, integers.dtype) == (dtypes.float32, dtypes.uint8)
    found, expected = (KERNELS.linear_residual(h, wo, residual).numpy() for h in (integers, plain))
    np.testing.assert_array_equal(found, expected)


def test_floats_stay_where_they_are_read() -> None:
    rng = np.random.default_rng(0)
    gate = KERNELS.pack(oracles.random_matrix(rng, "Q4_1", 64, 32), "CPU")
    uneven = KERNELS.pack(oracles.random_matrix(rng, "Q4_1", 75, 32), "CPU")
    integer, floating = (KERNELS.pack(oracles.random_matrix(rng, type, 16, 64), "CPU") for type in ("Q4_1", "F16"))
    adapted = AdaptedWeight(integer, floats(rng, 4, 64), floats(rng, 16, 4))
    by_row = RowAdaptedWeight.of(integer, (adapted, None), put(np.zeros(16, np.int32)))
    norm = floats(rng, 32)
    for T, weight, then in ((1, gate, integer), (4, gate, floating), (4, gate, adapted), (4, gate, by_row), (4, uneven, integer)):
        assert KERNELS.norm_gated(floats(rng, T, 32), norm, EPS, weight, weight, then=then).dtype == dtypes.float32
