"""The plain-Tensor kernel set against NumPy, operation by operation; the engine's tests hold them together against a whole model."""

import numpy as np
import pytest
from tinygrad import Tensor, UOp

from ext.tinygrad.buffers import read, upload, write
from ext.tinygrad.kernels import kernels_for
from ext.tinygrad.kernels.cpu.cpu_kernels import CPUKernels
from ext.tinygrad.kernels.matrix import QuantMatrix
from ext.tinygrad.kernels.protocol import rope_table
from ext.tinygrad.kernels.reference import DenseWeight, LaneWeight, ReferenceKernels
from tests.ext.tinygrad.kernels.test_blocks import random_matrix
from tests.reference import llama_numpy

pytestmark = pytest.mark.slow

TWINS = ReferenceKernels()


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


PRODUCTS = [("CPU", kind, T) for kind in ("Q4_0", "Q4_1", "Q8_0", "Q5_K", "Q6_K") for T in (1, 5, 32)]
PRODUCTS += [("CL", "Q4_1", 1), ("CL", "Q6_K", 32)]  # OpenCL compiles slowly


@pytest.mark.sweep
@pytest.mark.parametrize("device, kind, T", PRODUCTS, indirect=["device"])
def test_a_product_with_lanes_is_that_of_the_dequantised_matrix(device: str, kind: str, T: int) -> None:
    matrix, x = random_matrix(kind, rows=37), normal(T, 512)
    weight = TWINS.pack(matrix, device)
    assert isinstance(weight, LaneWeight) and weight.shape == (37, 512)
    np.testing.assert_allclose(weight.to_tensor().numpy(), matrix.dequantize(), rtol=1e-5, atol=1e-5)
    product = weight.matmul(upload(x, device)).numpy()
    np.testing.assert_allclose(product, x @ matrix.dequantize().T, rtol=1e-4, atol=1e-3 * np.abs(product).max())


@pytest.mark.sweep
@pytest.mark.parametrize("kind", ["Q4_1", "Q8_0"])
@pytest.mark.parametrize("rows, cols", [(1, 32), (16, 64), (17, 32)])
@pytest.mark.parametrize("T", [1, 3, 8])
def test_a_product_with_one_block_of_rows_or_one_group_of_columns(kind: str, rows: int, cols: int, T: int) -> None:
    """A loop of one step is none to the code generator."""
    matrix, x = random_matrix(kind, rows, cols), normal(T, cols)
    product = TWINS.pack(matrix, "CPU").matmul(upload(x, "CPU")).numpy()
    np.testing.assert_allclose(product, x @ matrix.dequantize().T, rtol=1e-4, atol=1e-3 * np.abs(product).max())


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_floats_stay_as_they_are(kind: str) -> None:
    values = normal(10, 64)
    matrix = QuantMatrix.from_float32(values, kind)
    weight = TWINS.pack(matrix, "CPU")
    assert isinstance(weight, DenseWeight)
    assert np.array_equal(weight.to_tensor().numpy(), matrix.dequantize())
    assert weight.nbytes == values.size * (4 if kind == "F32" else 2) or kind == "BF16"


@pytest.mark.parametrize("kind", ["Q4_1", "Q8_0", "F32"])
def test_embedding_picks_rows_by_number(kind: str) -> None:
    matrix = QuantMatrix.from_float32(normal(37, 64), kind)
    ids = np.array([0, 36, 17, 17], np.int32)
    rows = TWINS.embed(upload(ids, "CPU"), TWINS.pack(matrix, "CPU")).numpy()
    np.testing.assert_allclose(rows, matrix.dequantize()[ids], rtol=1e-6)


@pytest.mark.sweep
@pytest.mark.parametrize("n_kv_heads", [1, 2, 4])
@pytest.mark.parametrize("T, start", [(1, 0), (1, 11), (6, 0), (6, 9)])
def test_attention_sees_what_came_before_and_nothing_else(n_kv_heads: int, T: int, start: int) -> None:
    heads, head_dim, rows = 4, 16, 24
    q, k, v = normal(T, heads, head_dim), normal(n_kv_heads, rows, head_dim, seed=1), normal(n_kv_heads, rows, head_dim, seed=2)
    out = TWINS.attend(upload(q, "CPU"), upload(k, "CPU"), upload(v, "CPU"), start).numpy().reshape(T, heads, head_dim)
    for t in range(T):
        for head in range(heads):
            shared, seen = head * n_kv_heads // heads, start + t + 1
            weights = llama_numpy.softmax(q[t, head] @ k[shared, :seen].T / np.float32(np.sqrt(head_dim)))
            np.testing.assert_allclose(out[t, head], weights @ v[shared, :seen], atol=1e-5)


def test_keys_are_turned_and_stored_where_they_belong() -> None:
    T, start, rows, heads, n_kv_heads, head_dim = 3, 5, 16, 4, 2, 8
    dim = heads * head_dim
    x, norm = normal(T, dim), normal(dim, seed=1)
    wq, wk, wv = (normal(n * head_dim, dim, seed=i) for i, n in ((2, heads), (3, n_kv_heads), (4, n_kv_heads)))
    shape = (n_kv_heads, rows, head_dim)
    cache_k, cache_v = (upload(np.zeros(shape, np.float32), "CPU") for _ in range(2))
    rope = upload(rope_table(rows, head_dim, head_dim, 1e4), "CPU")
    packed = [TWINS.pack(QuantMatrix.from_float32(w), "CPU") for w in (wq, wk, wv)]
    position = UOp.variable("start_pos", 0, rows - T).bind(start)
    q, k, v = TWINS.norm_qkv(upload(x, "CPU"), upload(norm, "CPU"), 1e-5, *packed, rope, cache_k, cache_v, position)
    Tensor.realize(q, k, v)

    h = llama_numpy.rms_norm(x, norm, 1e-5)
    cos, sin = (table[start : start + T] for table in llama_numpy.rope_table(rows, head_dim, 1e4))
    expected_k = llama_numpy.rotate((h @ wk.T).reshape(T, n_kv_heads, head_dim), cos, sin).transpose(1, 0, 2)
    np.testing.assert_allclose(q.numpy(), llama_numpy.rotate((h @ wq.T).reshape(T, heads, head_dim), cos, sin), atol=1e-4)
    stored_k, stored_v = (read(cache, np.empty(shape, np.float32)) for cache in (cache_k, cache_v))
    np.testing.assert_allclose(stored_k[:, start : start + T], expected_k, atol=1e-4)
    np.testing.assert_allclose(stored_v[:, start : start + T], (h @ wv.T).reshape(T, n_kv_heads, head_dim).transpose(1, 0, 2), atol=1e-4)
    untouched = [*range(start), *range(start + T, rows)]
    assert not stored_k[:, untouched].any() and not stored_v[:, untouched].any()


def test_rope_leaves_alone_what_a_model_does_not_turn() -> None:
    table = rope_table(4, 16, 8, 1e4)
    assert np.array_equal(table[:, 4:], np.broadcast_to(np.array([1, 0], np.float32), (4, 4, 2)))
    np.testing.assert_allclose(table[3, :4, 0], np.cos(3 * 1e4 ** (-np.arange(0, 8, 2) / 8)), rtol=1e-6)


@pytest.mark.parametrize("shape", [(3,), (16, 33), (2, 3, 5)])
def test_buffers_are_written_and_read_whole(shape: tuple[int, ...], device: str) -> None:
    first, second = normal(*shape), normal(*shape, seed=1)
    first.flags.writeable = False  # as a view of a memory map is
    tensor = upload(first, device)
    assert np.array_equal(read(tensor, np.empty(shape, np.float32)), first)
    write(tensor, second)
    assert np.array_equal(read(tensor, np.empty(shape, np.float32)), second) and np.array_equal(tensor.numpy(), second)


def test_kernels_0_leaves_the_fused_kernels_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNELS", "0")
    assert isinstance(kernels_for("CPU"), ReferenceKernels)


def test_a_cpu_that_cannot_run_the_fused_kernels_says_why_and_gets_the_twins(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("KERNELS", raising=False)
    monkeypatch.setattr(CPUKernels, "available", staticmethod(lambda: "no vector unit"))
    assert isinstance(kernels_for("CPU"), ReferenceKernels)
    assert "no vector unit" in capsys.readouterr().err
