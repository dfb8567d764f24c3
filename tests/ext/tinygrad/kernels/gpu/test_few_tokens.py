"""A pass over several conversations: each token is computed, to the last bit, as one alone is, and as the plain-Tensor set has it."""

import numpy as np
import pytest
from tinygrad import Tensor, dtypes

from ext.tinygrad.kernels.gpu.operands import ROW_SIZES
from ext.tinygrad.kernels.protocol import Attention, RowPositions, rope_table
from ext.tinygrad.kernels.reference import ReferenceKernels
from tests.ext.tinygrad.kernels.gpu.test_operations import EPS, GPU, TYPES, cuda_emulator, floats, gpu  # noqa: F401
from tests.reference import oracles

SLOTS, ROWS = 3, 110
POSITIONS = [0, 1, 31, 32, 33, 63, 64, 90, 5, 17, 50, 77, 96, 109, 2, 40]


def places(rng: np.random.Generator, T: int) -> np.ndarray:
    """(2, T): slots and positions; the last row is unused where there are more than two."""
    table = np.stack([rng.integers(0, SLOTS, T), POSITIONS[:T]]).astype(np.int32)
    if T > 2:
        table[:, -1] = -1
    return table


def bits(activations: Tensor, T: int) -> np.ndarray:
    return np.asarray(activations.numpy()).reshape(T, -1)


@pytest.mark.sweep
@pytest.mark.parametrize("type", ["Q4_1", *(pytest.param(t, marks=pytest.mark.slow) for t in TYPES if t != "Q4_1")])
@pytest.mark.parametrize("T", [4, *(pytest.param(n, marks=pytest.mark.slow) for n in ROW_SIZES if n != 4)])
def test_products_are_those_of_one_token(gpu: GPU, type: str, T: int) -> None:  # noqa: F811
    rng = np.random.default_rng(T)
    matrix, other = (oracles.random_matrix(rng, type, 75, 512) for _ in range(2))
    weight, gate = (gpu.kernels.pack(m, gpu.device) for m in (matrix, other))
    x, norm, residual = floats(rng, T, 512) * 2, gpu.put(floats(rng, 512)), floats(rng, T, 75)

    def run(t: slice) -> list[np.ndarray]:
        return [
            gpu.kernels.linear_residual(gpu.put(x[t]), weight, gpu.put(residual[t])).numpy(),
            gpu.kernels.norm_linear(gpu.put(x[t]), norm, EPS, weight).numpy(),
            bits(gpu.kernels.norm_gated(gpu.put(x[t]), norm, EPS, gate, weight), len(x[t])),
        ]

    together = run(slice(None))
    for t in (0, 1, T - 1):
        for ours, alone in zip(together, run(slice(t, t + 1)), strict=True):
            np.testing.assert_array_equal(ours[t], alone[0])


@pytest.mark.sweep
@pytest.mark.parametrize(
    "heads, kv_heads, head_dim, cache, T, attention",
    [(9, 3, 64, np.float16, 4, Attention()), *(pytest.param(*case, marks=pytest.mark.slow) for case in (
        (4, 4, 32, np.float32, 2, Attention(window=20, softcap=30.0)), (16, 2, 128, np.float16, 16, Attention()),
        (9, 3, 64, np.float16, 8, Attention(window=33)), (8, 1, 80, np.float16, 8, Attention()), (2, 1, 100, np.float32, 4, Attention())))],
)  # fmt: skip
def test_each_attends_as_it_does_alone(
    gpu: GPU,  # noqa: F811
    heads: int,
    kv_heads: int,
    head_dim: int,
    cache: type[np.floating],
    T: int,
    attention: Attention,
) -> None:
    rng = np.random.default_rng(T)
    table, q = places(rng, T), floats(rng, T, heads, head_dim)
    k, v = (rng.standard_normal((SLOTS, kv_heads, ROWS, head_dim)).astype(cache) for _ in range(2))
    at = RowPositions(gpu.put(table))
    out = gpu.kernels.attend(gpu.put(q), gpu.put(k), gpu.put(v), at, attention)
    plain = ReferenceKernels().attend(gpu.put(q), gpu.put(k), gpu.put(v), at, attention).numpy()
    wide = heads * head_dim
    values = bits(out, T)[:, : 4 * wide].view(np.float32) if out.dtype == dtypes.uint8 else out.numpy()
    assert np.isfinite(values).all()
    for t, (slot, position) in enumerate(table.T):
        if position >= 0:
            oracles.assert_close(values[t], plain[t].astype(np.float64), tolerance=1e-5)
            alone = gpu.kernels.attend(gpu.put(q[t : t + 1]), gpu.put(k[slot]), gpu.put(v[slot]), int(position), attention)
            np.testing.assert_array_equal(bits(out, T)[t], bits(alone, 1)[0])


@pytest.mark.sweep
@pytest.mark.parametrize("types", [("Q4_1",) * 3, pytest.param(("Q4_K", "F16", "Q6_K"), marks=pytest.mark.slow)], ids="/".join)
@pytest.mark.parametrize("T", [4, pytest.param(16, marks=pytest.mark.slow)])
def test_each_is_turned_and_stored_where_it_stands(gpu: GPU, types: tuple[str, ...], T: int) -> None:  # noqa: F811
    rng, (heads, kv_heads, head_dim, dim) = np.random.default_rng(T), (3, 2, 32, 256)
    table, x, norm = places(rng, T), floats(rng, T, dim), gpu.put(floats(rng, dim))
    weights = [
        gpu.kernels.pack(oracles.random_matrix(rng, type, n * head_dim, dim), gpu.device)
        for type, n in zip(types, (heads, kv_heads, kv_heads), strict=True)
    ]
    rope = gpu.put(rope_table(ROWS, head_dim, head_dim, 10_000.0))
    k, v = (rng.standard_normal((SLOTS, kv_heads, ROWS, head_dim)).astype(np.float16) for _ in range(2))
    out = gpu.kernels.norm_qkv(gpu.put(x), norm, EPS, *weights, rope, gpu.put(k), gpu.put(v), RowPositions(gpu.put(table)))
    Tensor.realize(*out)
    q_all, k_all, v_all = (t.numpy() for t in out)
    expected_k, expected_v = k.copy(), v.copy()
    for t, (slot, position) in enumerate(table.T):
        if position < 0:
            continue
        one = gpu.kernels.norm_qkv(gpu.put(x[t : t + 1]), norm, EPS, *weights, rope, gpu.put(k[slot]), gpu.put(v[slot]), int(position))
        Tensor.realize(*one)
        np.testing.assert_array_equal(q_all[t], one[0].numpy()[0])
        expected_k[slot, :, position], expected_v[slot, :, position] = (c.numpy()[:, position] for c in one[1:])
    np.testing.assert_array_equal(k_all, expected_k)
    np.testing.assert_array_equal(v_all, expected_v)
