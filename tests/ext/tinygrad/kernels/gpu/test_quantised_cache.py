"""The kernels for GPUs over a cache of 8-bit blocks, in both dialects: what they store, and attention, against NumPy in float64.

Integers and scales become floats without rounding, so attention is as near to the oracle as over a cache of floats; on the matrix
instruction they are rounded once more, to halves."""

import numpy as np
import pytest
from tinygrad import Tensor, UOp, dtypes

from ext.tinygrad.buffers import upload
from ext.tinygrad.kernels.gpu.operands import few
from ext.tinygrad.kernels.matrix import QuantMatrix
from ext.tinygrad.kernels.protocol import FULL_ATTENTION, Attention, HeadTransform, Kernels, RowPositions, rope_table
from ext.tinygrad.kernels.reference import ReferenceKernels
from tests.ext.tinygrad.kernels.gpu.test_few_tokens import POSITIONS, bits, places
from tests.ext.tinygrad.kernels.gpu.test_operations import EPS, GPU, cuda_emulator, floats, floats_of, gpu  # noqa: F401
from tests.reference import oracles
from tests.reference.quantised_rows import dequantise, quantise, scales_of

ROWS, DIM, SLOTS = 150, 128, 3
SHAPES = [(9, 3, 64), (4, 4, 32), (8, 2, 96), (20, 1, 128), (2, 1, 256)]  # GQA, MHA, MQA; rows aligned to 4, 2, 2, 8 and 16 bytes
PLAIN = ReferenceKernels()


def random_rows(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return quantise(floats(rng, *shape))


def attended(gpu: GPU, q: np.ndarray, k: np.ndarray, v: np.ndarray, at: int, attention: Attention = FULL_ATTENTION) -> np.ndarray:  # noqa: F811
    """(T, H * Hd)."""
    position = UOp.variable("start_pos", 0, ROWS - 1).bind(at)
    out = gpu.kernels.attend(gpu.put(q), gpu.put(k), gpu.put(v), position, attention).numpy()
    return floats_of(out, q.shape[1] * q.shape[2]) if out.dtype == np.uint8 else out


def check(gpu: GPU, T: int, at: int, heads: int, kv_heads: int, head_dim: int, attention: Attention = FULL_ATTENTION) -> None:  # noqa: F811
    rng = np.random.default_rng(at + T)
    q = floats(rng, T, heads, head_dim) * np.float32(2)
    k, v = (random_rows(rng, kv_heads, ROWS, head_dim) for _ in range(2))
    expected = oracles.attend(q, dequantise(k), dequantise(v), at, attention.window)
    k[:, at + T :] = v[:, at + T :] = 255  # what lies beyond must not be looked at: its scales are no numbers
    halves = T > 1 and gpu.kernels.attends_on_matrix(head_dim, gpu.put(k))
    assert T == 1 or halves == (gpu.device == "CUDA")
    oracles.assert_close(attended(gpu, q, k, v, at, attention), expected, tolerance=2e-3 if halves else 1e-5)


@pytest.mark.sweep
@pytest.mark.parametrize("at", [0, 1, 31, 32, 100, ROWS - 1])
def test_one_token_at_every_kind_of_position(gpu: GPU, at: int) -> None:  # noqa: F811
    check(gpu, 1, at, 9, 3, 64)


@pytest.mark.sweep
@pytest.mark.parametrize("T, at", [(2, 0), (5, 31), (70, ROWS - 70)])
def test_a_prefill_at_every_kind_of_position(gpu: GPU, T: int, at: int) -> None:  # noqa: F811
    check(gpu, T, at, 9, 3, 64)


@pytest.mark.sweep
@pytest.mark.parametrize("heads, kv_heads, head_dim", SHAPES)
@pytest.mark.parametrize("T", [1, 20])
def test_every_shape_of_head(gpu: GPU, heads: int, kv_heads: int, head_dim: int, T: int) -> None:  # noqa: F811
    check(gpu, T, 100, heads, kv_heads, head_dim)
    check(gpu, T, 100, heads, kv_heads, head_dim, Attention(window=33))


@pytest.mark.slow
@pytest.mark.parametrize("attention", [Attention(window=20, softcap=30.0), Attention(scale=0.1)])
@pytest.mark.parametrize("T", [1, 20])
def test_soft_caps_and_scales_are_those_of_the_plain_set(gpu: GPU, attention: Attention, T: int) -> None:  # noqa: F811
    rng = np.random.default_rng(T)
    q, (k, v) = floats(rng, T, 4, 64), (random_rows(rng, 2, ROWS, 64) for _ in range(2))
    plain = PLAIN.attend(gpu.put(q), gpu.put(k), gpu.put(v), 90, attention).numpy()
    halves = T > 1 and gpu.kernels.attends_on_matrix(64, gpu.put(k))
    oracles.assert_close(attended(gpu, q, k, v, 90, attention), plain.astype(np.float64), tolerance=2e-3 if halves else 1e-5)


@pytest.mark.sweep
@pytest.mark.parametrize("T", [4, pytest.param(16, marks=pytest.mark.slow)])
@pytest.mark.parametrize("heads, kv_heads, head_dim", [SHAPES[0], *(pytest.param(*one, marks=pytest.mark.slow) for one in SHAPES[2:4])])
def test_each_row_of_a_batch_attends_as_it_does_alone(gpu: GPU, T: int, heads: int, kv_heads: int, head_dim: int) -> None:  # noqa: F811
    rng = np.random.default_rng(T)
    table, q = places(rng, T), floats(rng, T, heads, head_dim)
    k, v = (random_rows(rng, SLOTS, kv_heads, max(POSITIONS) + 1, head_dim) for _ in range(2))
    out = gpu.kernels.attend(gpu.put(q), gpu.put(k), gpu.put(v), RowPositions(gpu.put(table)))
    assert out.dtype == dtypes.uint8
    values = bits(out, T)[:, : 4 * heads * head_dim].view(np.float32)
    plain = PLAIN.attend(gpu.put(q), gpu.put(k), gpu.put(v), RowPositions(gpu.put(table))).numpy()
    for t, (slot, position) in enumerate(table.T):
        if position >= 0:
            oracles.assert_close(values[t], plain[t].astype(np.float64), tolerance=1e-5)
            alone = gpu.kernels.attend(gpu.put(q[t : t + 1]), gpu.put(k[slot]), gpu.put(v[slot]), int(position))
            np.testing.assert_array_equal(bits(out, T)[t], bits(alone, 1)[0])


def transform_of(gpu: GPU, rng: np.random.Generator, traits: str, rows: int, head_dim: int) -> HeadTransform | None:  # noqa: F811
    return {
        "": None,
        "bias": HeadTransform(bias=gpu.put(floats(rng, rows))),
        "norm": HeadTransform(norm=gpu.put(floats(rng, 2 * head_dim)), eps=EPS),
    }[traits]


@pytest.mark.sweep(1, "gpu, type, T")
@pytest.mark.parametrize("type", ["Q4_1", "F32"])  # whose products of many tokens take different ways
@pytest.mark.parametrize("traits", ["", "bias", "norm"])
@pytest.mark.parametrize("T", [1, 4, 40, pytest.param(130, marks=pytest.mark.slow)])
@pytest.mark.parametrize("heads, kv_heads, head_dim", [(9, 3, 64), (3, 1, 32), (3, 3, 96), (4, 1, 128)])
def test_keys_and_values_are_stored_as_numpy_quantises_them(
    gpu: GPU,  # noqa: F811
    type: str,
    traits: str,
    T: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
) -> None:
    """As the same kernels store floats in a cache of those, quantised by NumPy; nothing else of the cache is touched."""
    rng, position = np.random.default_rng(T), 7
    sizes = (heads * head_dim, kv_heads * head_dim, kv_heads * head_dim)
    weights = [gpu.kernels.pack(oracles.random_matrix(rng, type, n, DIM), gpu.device) for n in sizes]
    x, norm, rope = gpu.put(floats(rng, T, DIM)), gpu.put(floats(rng, DIM)), gpu.put(rope_table(ROWS, head_dim, head_dim, 1e4))
    transform = transform_of(gpu, rng, traits, sum(sizes), head_dim)
    table = places(rng, T) if few(T) and T > 1 else None
    at = position if table is None else RowPositions(gpu.put(table))

    def stored(before: np.ndarray) -> list[np.ndarray]:
        out = gpu.kernels.norm_qkv(x, norm, EPS, *weights, rope, gpu.put(before), gpu.put(before), at, transform)
        Tensor.realize(*out)
        return [t.numpy() for t in out]

    slots = [SLOTS] * (table is not None)
    before = rng.integers(0, 256, (*slots, kv_heads, ROWS, head_dim * 17 // 16)).astype(np.uint8)
    (q, *exact), (q_too, *rows) = stored(np.zeros((*slots, kv_heads, ROWS, head_dim), np.float32)), stored(before)
    oracles.assert_close(q_too, q.astype(np.float64), tolerance=1e-6)
    written = np.zeros((*slots, ROWS), bool)
    for t in range(T):
        if table is None:
            written[position + t] = True
        elif table[1, t] >= 0:
            written[tuple(table[:, t])] = True
    written = np.broadcast_to(written[..., None, :], before.shape[:-1])
    for one, ours in zip(exact, rows, strict=True):
        np.testing.assert_array_equal(ours[~written], before[~written])
        one, ours = one[written], ours[written]
        assert (quantise(one) == ours).mean() > 0.999  # all but what lies in the middle of two integers
        assert (np.abs(dequantise(ours) - one) <= scales_of(ours).repeat(32, axis=-1) * 0.5001 + 4e-6).all()


def test_blocks_of_any_size_are_stored_to_the_byte_as_the_reference_set_has_them(gpu: GPU) -> None:  # noqa: F811
    """A block of zeros, one below what a scale can be, one whose scale has few digits, and one of large values."""
    rng, head_dim = np.random.default_rng(0), 64
    sizes = np.repeat(np.array([0, 1e-9, 1e-4, 3e4], np.float32), 32)
    bias = np.concatenate([np.zeros(2 * head_dim, np.float32), floats(rng, 128) * sizes, floats(rng, 128) * sizes])
    x, matrix, rope = (
        floats(rng, 1, DIM),
        QuantMatrix.from_float32(np.zeros((128, DIM), np.float32)),
        rope_table(1, head_dim, head_dim, 1e4),
    )

    def stored(kernels: Kernels, device: str) -> list[np.ndarray]:
        inputs = [upload(values, device) for values in (rope, np.full((2, 1, 68), 3, np.uint8), np.full((2, 1, 68), 3, np.uint8))]
        weights = [kernels.pack(matrix, device) for _ in range(3)]
        out = kernels.norm_qkv(upload(x, device), None, EPS, *weights, *inputs, 0, HeadTransform(bias=upload(bias, device)))
        Tensor.realize(*out)
        return [t.numpy() for t in out[1:]]

    for ours, plain, values in zip(stored(gpu.kernels, gpu.device), stored(PLAIN, "CPU"), (bias[128:256], bias[256:]), strict=True):
        np.testing.assert_array_equal(ours, plain)
        np.testing.assert_array_equal(ours, quantise(values.reshape(2, 1, head_dim)))
