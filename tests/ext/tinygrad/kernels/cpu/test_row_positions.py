"""Rows of several conversations in one pass: each is computed to the last bit as it would be alone, and as the plain-Tensor set has it."""

import numpy as np
import pytest
from tinygrad import Tensor

from ext.tinygrad.buffers import upload
from ext.tinygrad.kernels.cpu.cpu_kernels import ROW_SIZES, CPUKernels
from ext.tinygrad.kernels.packed.packed_matrix import PackedMatrix
from ext.tinygrad.kernels.protocol import Attention, HeadTransform, RowPositions, rope_table
from ext.tinygrad.kernels.reference import ReferenceKernels
from tests.reference import guarded, oracles

KERNELS, PLAIN, EPS = CPUKernels(), ReferenceKernels(), 1e-5
SLOTS, ROWS, DIM = 3, 110, 128
POSITIONS = [0, 1, 31, 32, 33, 63, 64, 90, 5, 17, 50, 77, 96, 109, 2, 40]


def put(values: np.ndarray) -> Tensor:
    return upload(np.ascontiguousarray(values), "CPU")


def floats(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def places(rng: np.random.Generator, T: int) -> np.ndarray:
    """(2, T): slots and positions, the last row unused where there are more than two."""
    table = np.stack([rng.integers(0, SLOTS, T), POSITIONS[:T]]).astype(np.int32)
    if T > 2:
        table[:, -1] = -1
    return table


MANY = pytest.param(16, marks=pytest.mark.slow)  # more kernels to compile


@pytest.mark.sweep
@pytest.mark.parametrize("T", [2, MANY])
@pytest.mark.parametrize(
    "heads, kv_heads, head_dim, attention, cache",
    [
        (9, 3, 64, Attention(), np.float16),
        pytest.param(4, 4, 32, Attention(window=20, softcap=30.0), np.float32, marks=pytest.mark.slow),
        pytest.param(16, 1, 80, Attention(scale=0.1), np.float16, marks=pytest.mark.slow),
        pytest.param(20, 20, 64, Attention(), np.float32, marks=pytest.mark.slow),
    ],
)
def test_each_row_attends_as_it_does_alone(
    T: int, heads: int, kv_heads: int, head_dim: int, attention: Attention, cache: type[np.floating]
) -> None:
    rng = np.random.default_rng(T)
    table, q = places(rng, T), floats(rng, T, heads, head_dim)
    k, v = (rng.standard_normal((SLOTS, kv_heads, ROWS, head_dim)).astype(cache) for _ in range(2))
    out = KERNELS.attend(put(q), put(k), put(v), RowPositions(put(table)), attention).numpy()
    plain = PLAIN.attend(put(q), put(k), put(v), RowPositions(put(table)), attention).numpy()
    assert np.isfinite(plain).all()
    for t, (slot, position) in enumerate(table.T):
        if position < 0:
            np.testing.assert_array_equal(out[t], 0)
            continue
        alone = KERNELS.attend(put(q[t : t + 1]), put(k[slot]), put(v[slot]), int(position), attention).numpy()[0]
        np.testing.assert_array_equal(out[t], alone)
        oracles.assert_close(plain[t], alone.astype(np.float64), tolerance=1e-5)


@pytest.mark.parametrize("cache", [np.float16, pytest.param(np.float32, marks=pytest.mark.slow)])
def test_the_number_of_threads_changes_tasks_and_no_bit(cache: type[np.floating], monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    table, q = np.array([[0, 2, 1, 1], [109, 64, 90, -1]], np.int32), floats(rng, 4, 6, 64)
    k, v = (put(rng.standard_normal((SLOTS, 2, ROWS, 64)).astype(cache)) for _ in range(2))
    results, launches = [], []
    for threads in ("1", "64"):
        monkeypatch.setenv("THREADS", threads)
        out = KERNELS.attend(put(q), k, v, RowPositions(put(table)), Attention(window=60))
        launches.append(len(guarded.launches(out)))
        results.append(out.numpy())
    assert launches == [1, 2]  # a task puts the splits of its kv head together, or another kernel does
    np.testing.assert_array_equal(*results)


@pytest.mark.sweep(2)
@pytest.mark.parametrize("T", [2, MANY])
@pytest.mark.parametrize("traits", ["", *(pytest.param(name, marks=pytest.mark.slow) for name in ("bias", "norm"))])
@pytest.mark.parametrize("cache", [np.float16, pytest.param(np.float32, marks=pytest.mark.slow)])
def test_each_row_is_turned_and_stored_where_it_stands(T: int, traits: str, cache: type[np.floating]) -> None:
    rng = np.random.default_rng(T)
    heads, kv_heads, head_dim = 4, 2, 32
    table, x, norm = places(rng, T), floats(rng, T, DIM), put(floats(rng, DIM))
    sizes = (heads * head_dim, kv_heads * head_dim, kv_heads * head_dim)
    matrices = [oracles.random_matrix(rng, "F32", n, DIM) for n in sizes]
    rope = put(rope_table(ROWS, head_dim, head_dim, 10_000.0))
    transform = {
        "": None,
        "bias": HeadTransform(bias=put(floats(rng, sum(sizes)))),
        "norm": HeadTransform(norm=put(floats(rng, 2 * head_dim)), eps=EPS),
    }[traits]
    k, v = (rng.standard_normal((SLOTS, kv_heads, ROWS, head_dim)).astype(cache) for _ in range(2))

    def run(kernels: CPUKernels | ReferenceKernels) -> list[np.ndarray]:
        weights = [kernels.pack(matrix, "CPU") for matrix in matrices]
        out = kernels.norm_qkv(put(x), norm, EPS, *weights, rope, put(k), put(v), RowPositions(put(table)), transform)  # type: ignore[arg-type]
        Tensor.realize(*out)
        return [t.numpy() for t in out]

    q_all, k_all, v_all = run(KERNELS)
    expected_k, expected_v = k.copy(), v.copy()
    weights = [KERNELS.pack(matrix, "CPU") for matrix in matrices]
    for t, (slot, position) in enumerate(table.T):
        if position < 0:
            continue
        one = KERNELS.norm_qkv(put(x[t : t + 1]), norm, EPS, *weights, rope, put(k[slot]), put(v[slot]), int(position), transform)
        Tensor.realize(*one)
        np.testing.assert_array_equal(q_all[t], one[0].numpy()[0])
        expected_k[slot, :, position], expected_v[slot, :, position] = (c.numpy()[:, position] for c in one[1:])
    np.testing.assert_array_equal(k_all, expected_k)
    np.testing.assert_array_equal(v_all, expected_v)
    there = table[1] >= 0
    q_plain, k_plain, v_plain = run(PLAIN)
    for ours, plain in ((q_all[there], q_plain[there]), (k_all[:, :, :-1], k_plain[:, :, :-1]), (v_all[:, :, :-1], v_plain[:, :, :-1])):
        np.testing.assert_allclose(ours, plain, atol=2e-3 if cache is np.float16 else 1e-4)


@pytest.mark.sweep
@pytest.mark.slow
@pytest.mark.parametrize("type", ["F32", "F16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "F16 as stored"])
@pytest.mark.parametrize("T", ROW_SIZES)
def test_products_of_few_rows_are_those_of_one_to_the_last_bit(type: str, T: int) -> None:
    rng = np.random.default_rng(T)
    name, _, stored = type.partition(" ")
    rows, cols = 80, 512
    matrix, other = (oracles.random_matrix(rng, name, rows, cols) for _ in range(2))
    weight, gate = (PackedMatrix.in_place(m, "CPU") if stored else KERNELS.pack(m, "CPU") for m in (matrix, other))
    assert weight is not None and gate is not None
    x, norm, residual = floats(rng, T, cols) * 2, put(floats(rng, cols)), floats(rng, T, rows)

    def run(t: slice) -> list[np.ndarray]:
        return [
            KERNELS.linear_residual(put(x[t]), weight, put(residual[t])).numpy(),
            KERNELS.norm_linear(put(x[t]), norm, EPS, weight).numpy(),
            KERNELS.norm_gated(put(x[t]), norm, EPS, gate, weight).numpy(),
        ]

    together = run(slice(None))
    for t in range(T):
        for ours, alone in zip(together, run(slice(t, t + 1)), strict=True):
            np.testing.assert_array_equal(ours[t], alone[0])
