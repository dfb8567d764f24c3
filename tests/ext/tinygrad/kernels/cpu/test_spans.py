"""A pass that is cut into spans of tokens gives what one that is not gives, to the last bit."""

from collections.abc import Callable

import numpy as np
import pytest
from tinygrad import Tensor, dtypes

from ext.tinygrad.kernels.cpu.cpu_kernels import MOST_SPANS, CPUKernels
from ext.tinygrad.kernels.protocol import rope_table
from tests.reference import oracles

EPS, T, ROWS, HEADS, KV_HEADS, HEAD_DIM, COLS, HIDDEN = 1e-5, 96, 150, 6, 2, 64, 384, 512


class InSpans(CPUKernels):
    span_tokens = 32


def put(values: np.ndarray) -> Tensor:
    return Tensor(values, device="CPU").realize()


def floats(rng: np.random.Generator, *shape: int) -> Tensor:
    return put(rng.standard_normal(shape).astype(np.float32) * 3)


def same(run: Callable[[CPUKernels], tuple[Tensor, ...]]) -> None:
    """What `run` makes with both kernel sets, whole passes and spans."""
    whole, spans = CPUKernels(), InSpans()
    assert (whole._spans(T), spans._spans(T)) == (1, 3)
    for expected, found in zip(run(whole), run(spans), strict=True):
        np.testing.assert_array_equal(found.numpy(), expected.numpy())


@pytest.mark.parametrize("types", [("Q4_1", "Q4_1"), ("Q6_K", "F16"), ("F16", "Q8_0"), ("F32", "F32")], ids=":".join)
def test_products(types: tuple[str, str]) -> None:
    rng = np.random.default_rng(0)
    shapes = ((HIDDEN, 256), (HIDDEN, 256), (75, HIDDEN))
    gate, up, down = (CPUKernels().pack(oracles.random_matrix(rng, one, *shape), "CPU") for one, shape in zip((*types, types[1]), shapes))
    x, norm, residual, bias = floats(rng, T, 256), floats(rng, 256), floats(rng, T, 75), floats(rng, 2 * HIDDEN)

    def run(kernels: CPUKernels) -> tuple[Tensor, ...]:
        integers = kernels.norm_gated(x, norm, EPS, gate, up, then=down)
        assert integers.dtype == (dtypes.float32 if down.format.element else dtypes.uint8)
        unit = kernels.norm_gated(x, None, 0.0, gate, up, "gelu", bias)
        both = (kernels.linear_residual(h, down, residual) for h in (integers, unit))
        return unit, *both, kernels.norm_linear(integers, None, 0.0, down, softcap=30.0)

    same(run)


@pytest.mark.parametrize("types", ["Q4_1:Q4_1:Q4_1", "Q4_0:F16:Q8_0"])
@pytest.mark.parametrize("element", [np.float16, np.float32, np.uint8])
def test_attention(element: type, types: str) -> None:
    rng = np.random.default_rng(1)
    sizes, width = (HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM), HEAD_DIM * 17 // 16 if element is np.uint8 else HEAD_DIM
    weights = [CPUKernels().pack(oracles.random_matrix(rng, one, n, COLS), "CPU") for one, n in zip(types.split(":"), sizes)]
    wo = CPUKernels().pack(oracles.random_matrix(rng, "Q4_1", COLS, HEADS * HEAD_DIM), "CPU")
    x, norm, rope = floats(rng, T, COLS), floats(rng, COLS), put(rope_table(ROWS, HEAD_DIM, HEAD_DIM, 1e4))

    def run(kernels: CPUKernels) -> tuple[Tensor, ...]:
        caches = [put(np.zeros((KV_HEADS, ROWS, width), element)) for _ in range(2)]
        q, k, v = kernels.norm_qkv(x, norm, EPS, *weights, rope, *caches, 7)
        Tensor.realize(q, k, v)
        floating, integers = (kernels.attend(q, k, v, 7, then=then) for then in (None, wo))
        assert integers.dtype == dtypes.uint8
        return q, k, v, floating, kernels.linear_residual(floating, wo, x), kernels.linear_residual(integers, wo, x)

    same(run)


def test_the_bytes_of_integers_say_how_many_tokens_they_are_of() -> None:
    kernels = CPUKernels()
    weight = kernels.pack(oracles.random_matrix(np.random.default_rng(2), "Q4_1", 16, 64), "CPU")
    for tokens in (2, 31, 128, 130, 256, 384, MOST_SPANS * kernels.span_tokens, 14 * kernels.span_tokens, 1808):
        integers, _ = kernels._for_product(tokens, 64, weight, "CPU")
        assert integers.dtype == dtypes.uint8 and kernels._tokens(integers, weight) == tokens
