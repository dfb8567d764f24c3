"""Training's operations, both sets, against NumPy in float64; gradients against differences of the forward operation."""

from collections.abc import Callable

import numpy as np
import pytest
from tinygrad import Tensor

from ext.tinygrad.buffers import read, upload
from ext.tinygrad.kernels import training_kernels_for
from ext.tinygrad.kernels.cpu.cpu_kernels import CPUKernels
from ext.tinygrad.kernels.matrix import QuantMatrix
from ext.tinygrad.kernels.protocol import ACTIVATIONS, rope_table
from ext.tinygrad.kernels.reference import ReferenceKernels
from ext.tinygrad.kernels.training_kernels import AdapterPlace, Dropout, TrainingKernels
from tests.reference import oracles

pytestmark = pytest.mark.slow  # many shapes

T, RANK = 64, 3
TYPES = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"]


@pytest.fixture(params=[ReferenceKernels, CPUKernels], ids=["plain", "cpu"])
def base(request: pytest.FixtureRequest) -> ReferenceKernels | CPUKernels:
    if request.param is CPUKernels and (reason := CPUKernels.available()):
        pytest.skip(reason)
    made: ReferenceKernels | CPUKernels = request.param()
    return made


@pytest.fixture
def kernels(base: ReferenceKernels | CPUKernels) -> TrainingKernels:
    found = training_kernels_for(base)
    assert found is not None and found.name == base.name
    return found


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def floats(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def put(values: np.ndarray) -> Tensor:
    return upload(np.ascontiguousarray(values), "CPU")


def close(found: Tensor, expected: np.ndarray, tolerance: float = 2e-5) -> None:
    values = found.numpy()
    assert values.shape == expected.shape
    np.testing.assert_allclose(values, expected, atol=tolerance * np.abs(expected).max(), rtol=0)


def differences(loss: Callable[[np.ndarray], float], x: np.ndarray, places: list[tuple[int, ...]]) -> list[float]:
    """Central differences of a float64 function at some places."""
    found = []
    for place in places:
        step = np.zeros_like(x)
        step[place] = 1e-5
        found.append((loss(x + step) - loss(x - step)) / 2e-5)
    return found


@pytest.mark.sweep(1, "base, type")
@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("shape", [(80, 512), (544, 256)], ids=str)
def test_linear_backward_multiplies_with_the_transpose_of_what_is_packed(base, kernels, rng, type, shape) -> None:
    matrix = oracles.random_matrix(rng, type, *shape)
    weight, dy, there = base.pack(matrix, "CPU"), floats(rng, T, shape[0]), floats(rng, T, shape[1])
    expected = dy.astype(np.float64) @ matrix.dequantize().astype(np.float64)
    close(kernels.linear_backward(put(dy), weight), expected)
    target = put(there)
    kernels.linear_backward(put(dy), weight, into=target).realize()
    np.testing.assert_allclose(read(target, np.empty_like(there)), there + expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.sweep
@pytest.mark.parametrize("shape", [(75, 64), (64, 80), (33, 72)], ids=str)
def test_linear_backward_of_shapes_that_fill_no_tiles(base, kernels, rng, shape) -> None:
    values, dy = floats(rng, *shape), floats(rng, T, shape[0])
    close(kernels.linear_backward(put(dy), base.pack(QuantMatrix.from_float32(values), "CPU")), dy.astype(np.float64) @ values)


def test_linear_backward_reads_a_matrix_that_is_kept_as_its_file_has_it(rng) -> None:
    from ext.tinygrad.kernels.packed.packed_matrix import PackedMatrix

    kernels = training_kernels_for(CPUKernels())
    assert kernels is not None
    for type in ("F32", "F16", "BF16"):
        matrix, dy = oracles.random_matrix(rng, type, 48, 80), floats(rng, T, 48)
        weight = PackedMatrix.in_place(matrix, "CPU")
        assert weight is not None
        close(kernels.linear_backward(put(dy), weight), dy.astype(np.float64) @ matrix.dequantize())


@pytest.mark.sweep
@pytest.mark.parametrize("sizes", [(64, 96), (40, 72)], ids=str)
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_low_rank(kernels, rng, sizes, rate) -> None:
    cols, rows = sizes
    adapter = AdapterPlace(RANK, 7, 7 + RANK * cols, 0.5)
    params, x, y = floats(rng, 7 + RANK * (cols + rows)), floats(rng, T, cols), floats(rng, T, rows)
    dropout = Dropout(rate, put(np.array([11], np.uint32)), put(np.array([2], np.uint32)), 3) if rate else None
    down, up = params[7 : 7 + RANK * cols].reshape(RANK, cols), params[7 + RANK * cols :].reshape(RANK, rows)
    xd = x * mask(T * cols, rate, 11, 2, 3).reshape(x.shape)
    low = 0.5 * xd @ down.T
    target = put(np.zeros((T, RANK), np.float32))
    out, kept = kernels.low_rank(put(x), put(params), adapter, put(y), target, dropout)
    Tensor.realize(out, kept)
    close(kept, low)
    close(out, y + low @ up)
    dy, dx = floats(rng, T, rows), floats(rng, T, cols)
    dlow = 0.5 * dy @ up.T
    out, kept = kernels.low_rank_backward(put(dy), put(params), adapter, put(dx), dropout)
    Tensor.realize(out, kept)
    close(kept, dlow)
    close(out, dx + (dlow @ down) * mask(T * cols, rate, 11, 2, 3).reshape(x.shape))
    gradient = floats(rng, params.size)
    expected = gradient.copy()
    expected[7 : 7 + RANK * cols] += (dlow.T @ xd).reshape(-1)
    close(kernels.outer(put(dlow), put(x), put(gradient), 7, dropout), expected)


def mask(n: int, rate: float, seed: int, layer: int, slot: int) -> np.ndarray:
    """c/training/dropout.h in NumPy."""

    def hashed(x: np.ndarray) -> np.ndarray:
        x = x ^ (x >> np.uint32(16))
        x = x * np.uint32(0x7FEB352D)
        x = x ^ (x >> np.uint32(15))
        x = x * np.uint32(0x846CA68B)
        return x ^ (x >> np.uint32(16))

    of_pass = hashed(np.array([seed], np.uint32) ^ hashed(np.array([layer * 16 + slot], np.uint32)))
    chance = (hashed(np.arange(n, dtype=np.uint32) * np.uint32(0x9E3779B9) + of_pass) >> np.uint32(8)).astype(np.float32) * 2.0**-24
    return np.where(chance < rate, 0.0, 1 / (1 - rate))


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    found = mask(1 << 20, 0.25, 7, 0, 1)
    assert abs((found == 0).mean() - 0.25) < 2e-3 and abs(found.mean() - 1) < 3e-3
    assert abs(np.corrcoef(found[:-1], found[1:])[0, 1]) < 3e-3


def test_norm(kernels, rng) -> None:
    x, weight, dy, residual = floats(rng, T, 72), floats(rng, 72), floats(rng, T, 72), floats(rng, T, 72)

    def normed(x: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * weight

    close(kernels.norm(put(x), put(weight), 1e-5), normed(x))
    found = kernels.norm_backward(put(dy), put(x), put(weight), 1e-5, put(residual)).numpy() - residual
    places = [(0, 0), (5, 71), (63, 30)]
    expected = differences(lambda x: float((normed(x) * dy).sum()), x.astype(np.float64), places)
    np.testing.assert_allclose([found[place] for place in places], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gated(kernels, rng, activation) -> None:
    gate, up, dh = floats(rng, T, 96), floats(rng, T, 96), floats(rng, T, 96)

    def forward(gate: np.ndarray, up: np.ndarray) -> np.ndarray:
        if activation == "gelu":  # its tanh approximation, arXiv 1606.08415
            return gate / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3))) * up
        return gate / (1 + np.exp(-gate)) * up

    close(kernels.gated(put(gate), put(up), activation), forward(gate, up))
    dgate, dup = (t.numpy() for t in kernels.gated_backward(put(dh), put(gate), put(up), activation))
    places = [(0, 0), (17, 95)]
    for found, function, at in ((dgate, lambda x: forward(x, up), gate), (dup, lambda x: forward(gate, x), up)):
        expected = differences(lambda x, function=function: float((function(x) * dh).sum()), at.astype(np.float64), places)
        np.testing.assert_allclose([found[place] for place in places], expected, rtol=1e-4, atol=1e-5)


HEADS, KV_HEADS = 4, 2


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, first: np.ndarray, positions: np.ndarray, rope: np.ndarray) -> np.ndarray:
    """RoPE and attention as a plain loop in float64: (T, H, Hd)."""

    def turned(x: np.ndarray) -> np.ndarray:
        out, cos, sin = np.empty_like(x), rope[positions, None, :, 0], rope[positions, None, :, 1]
        out[..., 0::2], out[..., 1::2] = x[..., 0::2] * cos - x[..., 1::2] * sin, x[..., 1::2] * cos + x[..., 0::2] * sin
        return out

    q, k, out = turned(q), turned(k), np.zeros_like(q)
    for t in range(len(q)):
        for h in range(HEADS):
            seen = slice(first[t], t + 1)
            scores = k[seen, h // (HEADS // KV_HEADS)] @ q[t, h] * q.shape[2] ** -0.5
            p = np.exp(scores - scores.max())
            out[t, h] = p / p.sum() @ v[seen, h // (HEADS // KV_HEADS)]
    return out


@pytest.mark.parametrize("head_dim", [16, 64, 20], ids=str)
def test_attention_and_its_gradients(kernels, rng, head_dim) -> None:
    first = np.repeat(np.array([0, 13, 45], np.int32), [13, 32, 19])
    positions = (np.arange(T) - first).astype(np.int32)
    rope = rope_table(T, head_dim, head_dim, 10_000.0)
    q, k, v = (floats(rng, T, n, head_dim) for n in (HEADS, KV_HEADS, KV_HEADS))
    places = put(positions), put(rope)
    tq, tk = kernels.turn(put(q), put(k), *places)
    Tensor.realize(tq, tk)
    scale = head_dim**-0.5
    out, stats = (put(np.zeros((T, HEADS, n), np.float32)) for n in (head_dim, 2))
    out, stats = kernels.attend(tq, tk, put(v), put(first), scale, out, stats)
    Tensor.realize(out, stats)
    close(out, attention(q.astype(np.float64), k.astype(np.float64), v.astype(np.float64), first, positions, rope))
    dout = floats(rng, T, HEADS, head_dim)
    grads = kernels.attend_backward(put(dout.reshape(T, -1)), out.reshape(T, -1), stats, tq, tk, put(v), put(first), *places, scale)
    Tensor.realize(*grads)
    arrays = [q, k, v]
    at = [(0, 0, 0), (12, 1, 3), (13, 0, 2), (50, 1, head_dim - 1), (63, 1, 5)]
    for i, grad in enumerate(grads):

        def loss(x: np.ndarray, i: int = i) -> float:
            given = [a.astype(np.float64) for a in arrays]
            given[i] = x
            return float((attention(*given, first, positions, rope) * dout).sum())  # type: ignore[misc]

        found = grad.numpy().reshape(arrays[i].shape)
        expected = differences(loss, arrays[i].astype(np.float64), at)
        np.testing.assert_allclose([found[place] for place in at], expected, rtol=2e-4, atol=2e-5)


def test_cross_entropy(kernels, rng) -> None:
    logits, targets = floats(rng, T, 75) * 5, rng.integers(0, 75, T).astype(np.int32)
    shares = rng.random(T).astype(np.float32)
    shares[3] = 0
    exact = logits.astype(np.float64)
    p = np.exp(exact - exact.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    losses = -np.log(p[np.arange(T), targets])
    gradient, parts = kernels.cross_entropy(put(logits), put(targets), put(shares))
    Tensor.realize(gradient, parts)
    close(gradient, (p - (np.arange(75) == targets[:, None])) * shares[:, None], 1e-5)
    found = parts.numpy().astype(np.float64)
    np.testing.assert_allclose(np.log(found[:, 1]) + found[:, 0] - found[:, 2], losses, atol=2e-5)


def test_rows_are_gathered_and_added(kernels, rng) -> None:
    x, ids, out = floats(rng, T, 40), np.array([3, 0, 63, 3], np.int32), floats(rng, T, 40)
    close(kernels.rows(put(x), put(ids)), x[ids])
    expected = out.copy()
    np.add.at(expected, ids, x[ids])
    close(kernels.add_rows(put(x[ids]), put(ids), put(out)), expected)
