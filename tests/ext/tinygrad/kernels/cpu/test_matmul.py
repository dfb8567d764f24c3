"""The operations with weights, against NumPy over the same int8 activations and, loosely, against the twins."""

import numpy as np
import pytest
from tinygrad import Tensor, dtypes

from ext.tinygrad.buffers import read
from ext.tinygrad.kernels.cpu.cpu_kernels import CPUKernels
from ext.tinygrad.kernels.packed.packed_matrix import PackedMatrix
from ext.tinygrad.kernels.protocol import rope_table
from ext.tinygrad.kernels.reference import ReferenceKernels
from tests.reference import oracles

pytestmark = pytest.mark.slow

KERNELS, EPS = CPUKernels(), 1e-5
TYPES = ["F32", "F16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "Q2_K", "Q3_K"]
TOKENS = [1, 33]


def put(values: np.ndarray) -> Tensor:
    return Tensor(values, device="CPU").realize()


def floats(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("T", TOKENS)
def test_linear_residual(type: str, T: int) -> None:
    rng = np.random.default_rng(T)
    matrix, x, residual = oracles.random_matrix(rng, type, 75, 512), floats(rng, T, 512), floats(rng, T, 75)
    out = KERNELS.linear_residual(put(x), KERNELS.pack(matrix, "CPU"), put(residual)).numpy()
    oracles.assert_close(out, residual + oracles.matmul(x, matrix))


@pytest.mark.parametrize("kernels", [KERNELS, ReferenceKernels()], ids=lambda kernels: kernels.name)
@pytest.mark.parametrize("T", [1, 8])
def test_linear_residual_into_a_buffer_that_is_there(kernels: CPUKernels | ReferenceKernels, T: int) -> None:
    rng = np.random.default_rng(T)
    matrix, x, residual = oracles.random_matrix(rng, "Q4_1", 75, 512), floats(rng, T, 512), floats(rng, T, 75)
    target, weight = put(np.full((T, 75), np.nan, np.float32)), kernels.pack(matrix, "CPU")
    kernels.linear_residual(put(x), weight, put(residual), out=target).realize()  # type: ignore[arg-type]
    expected = kernels.linear_residual(put(x), weight, put(residual)).numpy()  # type: ignore[arg-type]
    np.testing.assert_array_equal(read(target, np.empty((T, 75), np.float32)), expected)


@pytest.mark.sweep
@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("T", TOKENS)
def test_norm_gated(type: str, T: int) -> None:
    rng = np.random.default_rng(T)
    gate, up = (oracles.random_matrix(rng, type, 75, 256) for _ in range(2))
    x, norm = floats(rng, T, 256) * 3, floats(rng, 256)
    out = KERNELS.norm_gated(put(x), put(norm), EPS, KERNELS.pack(gate, "CPU"), KERNELS.pack(up, "CPU")).numpy()
    h = oracles.rms_norm(x, norm, EPS)
    g = oracles.matmul(h, gate)
    oracles.assert_close(out, g / (1 + np.exp(-g)) * oracles.matmul(h, up), normed=True)


@pytest.mark.sweep
@pytest.mark.parametrize("rows, cols, T", [(1, 32, 1), (16, 96, 2), (203, 64, 7), (33, 160, 70), (8, 2048, 1), (500, 32, 3)])
@pytest.mark.parametrize("type", ["Q4_1", "F16"])
def test_norm_linear_of_any_shape(type: str, rows: int, cols: int, T: int) -> None:
    rng = np.random.default_rng(rows)
    matrix, x, norm = oracles.random_matrix(rng, type, rows, cols), floats(rng, T, cols), floats(rng, cols)
    out = KERNELS.norm_linear(put(x), put(norm), EPS, KERNELS.pack(matrix, "CPU")).numpy()
    oracles.assert_close(out, oracles.matmul(oracles.rms_norm(x, norm, EPS), matrix), normed=True)


@pytest.mark.sweep
@pytest.mark.parametrize("type", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("rows, cols, T", [(32, 48, 1), (48, 512, 1), (16, 64, 2), (48, 512, 33)])
def test_float_weights_as_a_file_has_them(type: str, rows: int, cols: int, T: int) -> None:
    rng = np.random.default_rng(rows)
    matrix, x, residual = oracles.random_matrix(rng, type, rows, cols), floats(rng, T, cols), floats(rng, T, rows)
    weight = PackedMatrix.in_place(matrix, "CPU")
    assert weight is not None
    oracles.assert_close(KERNELS.linear_residual(put(x), weight, put(residual)).numpy(), residual + oracles.matmul(x, matrix))
    ids = np.array([0, rows - 1, 7], np.int32)
    np.testing.assert_array_equal(KERNELS.embed(put(ids), weight).numpy(), matrix.dequantize()[ids])


def test_float_weights_take_any_number_of_columns() -> None:
    rng = np.random.default_rng(0)
    matrix, x, residual = oracles.random_matrix(rng, "F32", 21, 37), floats(rng, 5, 37), floats(rng, 5, 21)
    out = KERNELS.linear_residual(put(x), KERNELS.pack(matrix, "CPU"), put(residual)).numpy()
    oracles.assert_close(out, residual + oracles.matmul(x, matrix))


@pytest.mark.parametrize("type", TYPES)
def test_embed_gives_the_rows_of_the_file(type: str) -> None:
    rng = np.random.default_rng(0)
    matrix = oracles.random_matrix(rng, type, 77, 256)
    ids = np.array([0, 76, 15, 16, 17, 40, 0, 3, 76], np.int32)
    out = KERNELS.embed(put(ids), KERNELS.pack(matrix, "CPU")).numpy()
    np.testing.assert_allclose(out, matrix.dequantize()[ids], rtol=1e-6, atol=1e-7)


@pytest.mark.sweep
@pytest.mark.parametrize("types", [("Q4_1",) * 3, ("Q4_K", "Q4_K", "Q6_K"), ("F32",) * 3, ("Q4_0", "F16", "Q8_0")], ids="/".join)
@pytest.mark.parametrize("T, start_pos", [(1, 0), (1, 47), (5, 0), (16, 32)])
def test_norm_qkv_projects_rotates_and_stores(types: tuple[str, str, str], T: int, start_pos: int) -> None:
    rng, (heads, kv_heads, head_dim, rows, dim) = np.random.default_rng(T), (3, 1, 32, 48, 256)
    matrices = [oracles.random_matrix(rng, t, n * head_dim, dim) for t, n in zip(types, (heads, kv_heads, kv_heads))]
    x, norm, angles = floats(rng, T, dim), floats(rng, dim), rope_table(rows, head_dim, head_dim, 1e4)
    caches = [floats(rng, kv_heads, rows, head_dim) for _ in range(2)]
    weights = [KERNELS.pack(m, "CPU") for m in matrices]
    out = KERNELS.norm_qkv(put(x), put(norm), EPS, *weights, put(angles), put(caches[0]), put(caches[1]), start_pos)
    q, k, v = (t.numpy() for t in out)

    h, here = oracles.rms_norm(x, norm, EPS), angles[start_pos : start_pos + T]
    projected = [oracles.matmul(h, m).reshape(T, -1, head_dim) for m in matrices]
    oracles.assert_close(q, oracles.rotate(projected[0], here), normed=True)
    for actual, before, new in ((k, caches[0], oracles.rotate(projected[1], here)), (v, caches[1], projected[2])):
        oracles.assert_close(actual[:, start_pos : start_pos + T].swapaxes(0, 1), new, normed=True)
        others = [r for r in range(rows) if not start_pos <= r < start_pos + T]
        np.testing.assert_array_equal(actual[:, others], before[:, others])  # no other row is touched


@pytest.mark.sweep(2)
@pytest.mark.parametrize("type", ["Q4_1", "F32"])
@pytest.mark.parametrize("T", [1, 5])
@pytest.mark.parametrize("head_dim", [64, 100])
def test_a_layer_is_close_to_its_twin(type: str, T: int, head_dim: int) -> None:
    """Exact for float32 weights; otherwise within two hundredths of the largest value, which is what int8 activations cost on noise."""
    rng, (heads, kv_heads, dim, rows, at) = np.random.default_rng(0), (4, 2, 64, 60, 20)
    shapes = {"q": (heads * head_dim, dim), "k": (kv_heads * head_dim, dim), "v": (kv_heads * head_dim, dim), "o": (dim, heads * 64)}
    matrices = {n: oracles.random_matrix(rng, type, *s) for n, s in shapes.items()}
    x, norm, caches = floats(rng, T, dim), floats(rng, dim), [floats(rng, kv_heads, rows, head_dim) for _ in range(2)]
    outs = []
    for kernels in (KERNELS, ReferenceKernels()):
        w = {n: kernels.pack(m, "CPU") for n, m in matrices.items()}
        stored = [Tensor(c, device="CPU").cast(dtypes.float16).contiguous().realize() for c in caches]
        q, k, v = kernels.norm_qkv(
            put(x), put(norm), EPS, w["q"], w["k"], w["v"], put(rope_table(rows, head_dim, head_dim, 1e4)), *stored, at
        )
        attended = kernels.attend(q, k, v, at)
        outs.append([attended.numpy(), q.numpy(), k.numpy()])
        if head_dim == 64:
            outs[-1].append(kernels.linear_residual(attended, w["o"], put(x)).numpy())
    for mine, twin in zip(*outs):
        assert np.abs(mine - twin).max() <= (1e-3 if type == "F32" else 0.02) * np.abs(twin).max()  # 1e-3: keys and values are float16
