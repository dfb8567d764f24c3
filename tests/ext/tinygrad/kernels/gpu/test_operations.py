"""The kernels for GPUs in both dialects, with the sizes of a GPU's work-groups: OpenCL C on whatever driver is here, which has the plain
fallbacks only, and CUDA C with its PTX on the emulated driver of tests/reference/cuda_emulator.

Each operation against NumPy, a layer of them against the twins."""

import os
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
from tinygrad import Tensor, UOp

from ext.tinygrad.backend import describe_device
from ext.tinygrad.buffers import read, upload
from ext.tinygrad.kernels.gpu import gpu_kernels
from ext.tinygrad.kernels.gpu.gpu_kernels import GPUKernels
from ext.tinygrad.kernels.gpu.operands import few
from ext.tinygrad.kernels.gpu.tuning import Tuning
from ext.tinygrad.kernels.matrix import QuantMatrix
from ext.tinygrad.kernels.protocol import FULL_ATTENTION, Attention, Kernels, rope_table
from ext.tinygrad.kernels.reference import ReferenceKernels
from tests.reference import oracles
from tests.reference.cuda_emulator.fixtures import cuda_emulator  # noqa: F401

EPS = 1e-5
TYPES = ["F32", "F16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "Q2_K", "Q3_K"]
FLOATS = ("F32", "F16")
CARD = os.environ.get("TEST_GPU", "")  # a real one, by tinygrad's name: TEST_GPU=CUDA pytest …


def floats(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


@dataclass(frozen=True)
class GPU:
    """A device and the kernel set under test."""

    device: str
    kernels: GPUKernels

    def put(self, values: np.ndarray) -> Tensor:
        return upload(values, self.device)

    def halves(self, T: int, *types: str) -> bool:
        """Does a product of T tokens with weights of these types run on the matrix instruction?"""
        return not few(T) and self.kernels.tuning.has_matrix and "F32" not in types


@pytest.fixture(params=[CARD] if CARD else [pytest.param("CL", marks=[pytest.mark.costly, pytest.mark.slow]), "CUDA"])
def gpu(request: pytest.FixtureRequest) -> GPU:
    if CARD:
        describe_device(CARD)
        return GPU(CARD, GPUKernels(Tuning.of(CARD)))
    if request.param == "CL":
        return GPU("CL", GPUKernels(Tuning("gpu", units=16, most_items=256, local_bytes=32 << 10)))
    request.getfixturevalue("cuda_emulator")
    return GPU("CUDA", GPUKernels(Tuning.of("CUDA")))


def product(x: np.ndarray, matrix: QuantMatrix, halves: bool = False) -> np.ndarray:
    """x @ W.T in float64; one token, and each of a few, meets integer weights as int8, many as halves on the matrix instruction."""
    left, right = x.astype(np.float64), matrix.dequantize().astype(np.float64)
    if few(len(x)) and matrix.type not in FLOATS:
        left = oracles.quantized(x)
    elif halves:
        power = 2.0 ** (14 - np.floor(np.log2(np.abs(left).max(axis=1, keepdims=True))))
        left, right = (left * power).astype(np.float16).astype(np.float64) / power, right.astype(np.float16).astype(np.float64)
    return left @ right.T


def assert_close(ours: np.ndarray, expected: np.ndarray, tolerance: float = 2e-5, normed: bool = False, halves: bool = False) -> None:
    """Within `tolerance` of the largest value: sums are float32, in another order.

    After a norm, whose last digits may differ, an activation may round to the neighbouring int8, or half."""
    assert ours.shape == expected.shape and np.isfinite(ours).all()
    largest = 0.01 if normed and few(len(ours)) else 2e-4 if normed and halves else tolerance
    assert np.abs(ours - expected).max() <= largest * np.abs(expected).max()


def floats_of(activations: np.ndarray, cols: int) -> np.ndarray:
    """The float32 form (1, cols) of one token's activations; their int8 form is checked to be the same, quantised."""
    activations = activations.reshape(-1)
    values = activations[: 4 * cols].view(np.float32)
    if cols % 32 == 0:
        quants, scales = activations[4 * cols : 5 * cols].view(np.int8), activations[5 * cols :].view(np.float32)
        expected = oracles.quantized(values[None])[0]
        np.testing.assert_allclose(quants * np.repeat(scales.astype(np.float64), 32), expected, rtol=1e-6, atol=1.01 * scales.max() * 1e-2)
    return values[None]


@pytest.mark.sweep
@pytest.mark.parametrize(
    "type, T",
    [*((type, 1) for type in TYPES), *((type, 33) for type in TYPES if type not in ("Q4_0", "Q5_1", "Q4_K", "Q5_K", "IQ4_NL"))],
)
def test_linear_residual(gpu: GPU, type: str, T: int) -> None:
    rng = np.random.default_rng(T)
    matrix, x, residual = oracles.random_matrix(rng, type, 75, 512), floats(rng, T, 512), floats(rng, T, 75)
    out = gpu.kernels.linear_residual(gpu.put(x), gpu.kernels.pack(matrix, gpu.device), gpu.put(residual)).numpy()
    assert_close(out, residual + product(x, matrix, gpu.halves(T, type)))
    target = gpu.put(np.full((T, 75), np.nan, np.float32))
    weight = gpu.kernels.pack(matrix, gpu.device)
    gpu.kernels.linear_residual(gpu.put(x), weight, gpu.put(residual), out=target).realize()
    np.testing.assert_array_equal(read(target, np.empty((T, 75), np.float32)), out)


@pytest.mark.sweep
@pytest.mark.slow
@pytest.mark.parametrize("type, rows, T", [*((type, 64, 2) for type in TYPES), *(("Q5_1", 300, T) for T in (33, 65, 130))])
def test_every_type_and_tile_of_many_tokens(gpu: GPU, type: str, rows: int, T: int) -> None:
    rng = np.random.default_rng(rows + T)
    matrix, x, residual = oracles.random_matrix(rng, type, rows, 256), floats(rng, T, 256), floats(rng, T, rows)
    x[0] *= 1e6  # beyond what a half can hold
    x[1] *= 1e-6
    outs = []
    for units in (1, 16, 1000):  # few, or as many work-groups as there can be
        set_ = GPUKernels(replace(gpu.kernels.tuning, units=units))
        outs.append(set_.linear_residual(gpu.put(x), set_.pack(matrix, gpu.device), gpu.put(residual)).numpy())
    expected = residual + product(x, matrix, gpu.halves(T, type))
    for ours, row in zip(outs[0], expected):
        assert_close(ours[None, :], row[None, :])
    for other in outs[1:]:
        np.testing.assert_array_equal(other, outs[0])  # sums have one order whatever the tile


@pytest.mark.sweep
@pytest.mark.parametrize("types", [("Q4_1", "Q4_1"), ("Q6_K", "F16")], ids="/".join)
@pytest.mark.parametrize("T, rows", [(1, 75), (1, 96), (33, 75)])
def test_norm_gated(gpu: GPU, types: tuple[str, str], T: int, rows: int) -> None:
    rng = np.random.default_rng(T)
    gate, up = (oracles.random_matrix(rng, type, rows, 256) for type in types)
    x, norm = floats(rng, T, 256) * 3, floats(rng, 256)
    out = gpu.kernels.norm_gated(
        gpu.put(x), gpu.put(norm), EPS, gpu.kernels.pack(gate, gpu.device), gpu.kernels.pack(up, gpu.device)
    ).numpy()
    h = oracles.rms_norm(x, norm, EPS)
    halves = gpu.halves(T, *types)
    g = product(h, gate, halves)
    expected = g / (1 + np.exp(-g)) * product(h, up, halves)
    assert_close(floats_of(out, rows) if T == 1 else out, expected, normed=True, halves=halves)


@pytest.mark.sweep
@pytest.mark.parametrize("type, rows, cols, T", [("Q4_1", 1, 32, 1), ("F16", 203, 64, 7), ("Q4_1", 33, 160, 70), ("F32", 21, 37, 5)])
def test_norm_linear_of_any_shape(gpu: GPU, type: str, rows: int, cols: int, T: int) -> None:
    rng = np.random.default_rng(rows)
    matrix, x, norm = oracles.random_matrix(rng, type, rows, cols), floats(rng, T, cols), floats(rng, cols)
    out = gpu.kernels.norm_linear(gpu.put(x), gpu.put(norm), EPS, gpu.kernels.pack(matrix, gpu.device)).numpy()
    halves = gpu.halves(T, type)
    assert_close(out, product(oracles.rms_norm(x, norm, EPS), matrix, halves), normed=True, halves=halves)


@pytest.mark.sweep
@pytest.mark.parametrize("type", ["F32", "Q4_1", "Q5_0", "Q6_K"])
def test_embed_gives_the_rows_of_the_file(gpu: GPU, type: str) -> None:
    matrix = oracles.random_matrix(np.random.default_rng(0), type, 77, 256)
    ids = np.array([0, 76, 15, 16, 17, 40, 0, -1, 77], np.int32)
    rows = gpu.kernels.embed(gpu.put(ids), gpu.kernels.pack(matrix, gpu.device)).numpy()
    np.testing.assert_allclose(rows[:7], matrix.dequantize()[ids[:7]], rtol=1e-6, atol=1e-7)
    assert not rows[7:].any()  # no id of the vocabulary


@pytest.mark.sweep
@pytest.mark.parametrize(
    "types, head_dim, T, start_pos",
    [
        (("Q4_1",) * 3, 32, 1, 47),
        (("Q4_K", "Q4_K", "Q6_K"), 32, 16, 32),
        (("Q4_0", "F16", "Q8_0"), 20, 5, 0),
        (("F32", "Q4_1", "Q4_1"), 20, 1, 0),
    ],
    ids=str,
)
def test_norm_qkv_projects_rotates_and_stores(gpu: GPU, types: tuple[str, str, str], head_dim: int, T: int, start_pos: int) -> None:
    rng, (heads, kv_heads, rows, dim) = np.random.default_rng(T), (3, 1, 48, 256)
    matrices = [oracles.random_matrix(rng, t, n * head_dim, dim) for t, n in zip(types, (heads, kv_heads, kv_heads))]
    x, norm, angles = floats(rng, T, dim), floats(rng, dim), rope_table(rows, head_dim, head_dim, 1e4)
    caches = [floats(rng, kv_heads, rows, head_dim) for _ in range(2)]
    weights = [gpu.kernels.pack(m, gpu.device) for m in matrices]
    out = gpu.kernels.norm_qkv(gpu.put(x), gpu.put(norm), EPS, *weights, gpu.put(angles), gpu.put(caches[0]), gpu.put(caches[1]), start_pos)
    Tensor.realize(*out)
    q, k, v = (t.numpy() for t in out)

    h, here = oracles.rms_norm(x, norm, EPS), angles[start_pos : start_pos + T]
    halves = gpu.halves(T, *types)
    projected = [product(h, m, halves).reshape(T, -1, head_dim) for m in matrices]
    assert_close(q, oracles.rotate(projected[0], here), normed=True, halves=halves)
    for actual, before, new in ((k, caches[0], oracles.rotate(projected[1], here)), (v, caches[1], projected[2])):
        assert_close(actual[:, start_pos : start_pos + T].swapaxes(0, 1), new, normed=True, halves=halves)
        others = [r for r in range(rows) if not start_pos <= r < start_pos + T]
        np.testing.assert_array_equal(actual[:, others], before[:, others])  # no other row is touched


ROWS = 150


@cache
def caches(kv_heads: int, head_dim: int, kind: type[np.floating], held: int) -> tuple[np.ndarray, np.ndarray]:
    """Keys and values; what lies beyond what is held must not be looked at."""
    rng = np.random.default_rng(held)
    k, v = (rng.standard_normal((kv_heads, ROWS, head_dim)).astype(kind) for _ in range(2))
    k[:, held:] = v[:, held:] = np.nan
    return k, v


def check_attention(
    gpu: GPU,
    T: int,
    at: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    kind: type[np.floating],
    spread: float = 2.0,
    attention: Attention = FULL_ATTENTION,
) -> None:
    q, (k, v) = floats(np.random.default_rng(T), T, heads, head_dim) * np.float32(spread), caches(kv_heads, head_dim, kind, at + T)
    halves = T > 1 and gpu.kernels.attends_on_matrix(head_dim, gpu.put(k))
    position = UOp.variable("start_pos", 0, ROWS - 1).bind(at)
    out = gpu.kernels.attend(gpu.put(q), gpu.put(k), gpu.put(v), position, attention).numpy()
    out = floats_of(out, heads * head_dim) if out.dtype == np.uint8 else out
    if halves:  # queries and weights of the values are halves too
        scale = np.float32(np.log2(np.e) * head_dim**-0.5)
        q = (q * scale).astype(np.float16).astype(np.float64) / scale
    oracles.assert_close(out, oracles.attend(q, k, v, at, attention.window), tolerance=1e-5 if spread < 10 and not halves else 1e-3)


@pytest.mark.sweep
@pytest.mark.parametrize("at", [0, 1, 31, 32, 100, ROWS - 1])
def test_decode_attention_at_every_kind_of_position(gpu: GPU, at: int) -> None:
    check_attention(gpu, 1, at, 9, 3, 64, np.float16)


@pytest.mark.sweep
@pytest.mark.parametrize("T, at", [(2, 0), (5, 31), (16, 0), (70, ROWS - 70)])
def test_prefill_attention_at_every_kind_of_position(gpu: GPU, T: int, at: int) -> None:
    check_attention(gpu, T, at, 9, 3, 64, np.float16)


@pytest.mark.sweep
@pytest.mark.parametrize(
    "head_dim, heads, kv_heads, kind",
    [
        (32, 4, 4, np.float32),
        (64, 2, 2, np.float16),
        (80, 8, 2, np.float16),
        (96, 3, 3, np.float16),
        (100, 2, 1, np.float16),
        (128, 20, 1, np.float16),
        (256, 2, 1, np.float16),
    ],
)
@pytest.mark.parametrize("T", [1, 20])
def test_every_shape_of_head(gpu: GPU, head_dim: int, heads: int, kv_heads: int, kind: type[np.floating], T: int) -> None:
    check_attention(gpu, T, 45, heads, kv_heads, head_dim, kind)


@pytest.mark.sweep
@pytest.mark.parametrize("head_dim, window", [(64, 9), (64, 64), (128, 33)])
@pytest.mark.parametrize("T", [1, 40])
def test_a_window_hides_what_lies_before_it(gpu: GPU, T: int, head_dim: int, window: int) -> None:
    check_attention(gpu, T, 100, 4, 2, head_dim, np.float16, attention=Attention(window=window))


@pytest.mark.sweep(1, "gpu, T")
@pytest.mark.parametrize("kind", [np.float32, np.float16])
@pytest.mark.parametrize("T", [1, 20])
def test_scores_of_any_size_stay_finite(gpu: GPU, T: int, kind: type[np.floating]) -> None:
    check_attention(gpu, T, 64, 4, 2, 32, kind, spread=200.0)


@pytest.mark.sweep
@pytest.mark.parametrize("count", [1, 64, 250, 1000])
def test_the_largest_logits_are_those_of_a_full_sort(gpu: GPU, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_kernels, "MOST_SORTED", 128)  # as a vocabulary of a million would have it
    monkeypatch.setattr(gpu_kernels, "MOST_GROUPS", 3)
    rng = np.random.default_rng(count)
    for logits in (floats(rng, 1, count), rng.integers(-3, 3, (1, count)).astype(np.float32), -np.inf * np.ones((1, count), np.float32)):
        logits[0, rng.integers(0, count, count // 9)] = np.nan
        ids, bits = gpu.kernels.largest(gpu.put(logits)).numpy()
        there = np.flatnonzero(~np.isnan(logits[0]))
        expected = there[np.argsort(-logits[0, there], kind="stable")][:64]
        assert ids[: len(expected)].tolist() == expected.tolist() and set(ids[len(expected) :].tolist()) <= {-1}
        np.testing.assert_array_equal(bits.view(np.float32)[: len(expected)], logits[0, expected])


@pytest.mark.slow
@pytest.mark.parametrize("T", [1, 5])
def test_a_layer_is_its_twin_on_the_same_device(gpu: GPU, T: int) -> None:
    rng, (heads, kv_heads, head_dim, rows, dim, at) = np.random.default_rng(0), (4, 2, 32, 40, 64, 7)
    shapes = [(heads * head_dim, dim), (kv_heads * head_dim, dim), (kv_heads * head_dim, dim), (dim, heads * head_dim)]
    matrices = [oracles.random_matrix(rng, "Q4_1", *shape) for shape in shapes]
    x, norm, outs = floats(rng, T, dim), floats(rng, dim), []
    set_: Kernels
    for set_ in (gpu.kernels, ReferenceKernels()):
        wq, wk, wv, wo = (set_.pack(m, gpu.device) for m in matrices)
        stored = [gpu.put(np.zeros((kv_heads, rows, head_dim), np.float16)) for _ in range(2)]
        q, k, v = set_.norm_qkv(gpu.put(x), gpu.put(norm), EPS, wq, wk, wv, gpu.put(rope_table(rows, head_dim, head_dim, 1e4)), *stored, at)
        attended = set_.attend(q, k, v, at)
        out = set_.linear_residual(attended, wo, gpu.put(x))
        held = [t.numpy() for t in (attended, k, v, out)]
        held[0] = floats_of(held[0], heads * head_dim) if held[0].dtype == np.uint8 else held[0]
        outs.append([values.astype(np.float32) for values in held])
    for ours, twin in zip(*outs):
        # keys and values are halves: their last bit; one token is int8 where it meets integer weights
        assert_close(ours, twin, 0.03 if T == 1 else 3e-3 if gpu.halves(T) else 1e-3)
