"""The CPU's kernels over a cache of 8-bit blocks: what they store, and attention, against NumPy in float64.

Attention of one token multiplies 16-bit integers: a query's entries are rounded by 1 / 65534 of the largest, weights by as much of the
largest of a chunk of positions. So an output may be off by some 1e-4 of the largest value; the bound here is 3e-4. A prefill is in floats.
"""

import numpy as np
import pytest
from tinygrad import Tensor

from ext.tinygrad.buffers import upload
from ext.tinygrad.kernels.cpu.cpu_kernels import QUANTISED_CHUNK, CPUKernels
from ext.tinygrad.kernels.protocol import FULL_ATTENTION, Attention, HeadTransform, RowPositions, rope_table
from ext.tinygrad.kernels.reference import ReferenceKernels
from tests.reference import oracles
from tests.reference.quantised_rows import dequantise, quantise, scales_of

KERNELS, PLAIN, EPS = CPUKernels(), ReferenceKernels(), 1e-5
ROWS, DIM, SLOTS = 150, 128, 3
ONE_TOKEN, PREFILL = 3e-4, 1e-5  # of the largest value
SHAPES = [(9, 3, 64), (4, 4, 32), (8, 1, 96), (3, 1, 128), (20, 20, 64)]


def put(values: np.ndarray) -> Tensor:
    return upload(np.ascontiguousarray(values), "CPU")


def floats(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def check(T: int, at: int, heads: int, kv_heads: int, head_dim: int, attention: Attention = FULL_ATTENTION) -> None:
    rng = np.random.default_rng(at + T)
    q = floats(rng, T, heads, head_dim) * np.float32(2)
    k, v = (quantise(floats(rng, kv_heads, ROWS, head_dim)) for _ in range(2))
    expected = oracles.attend(q, dequantise(k), dequantise(v), at, attention.window)
    k[:, at + T :] = v[:, at + T :] = 255  # what lies beyond must not be looked at: its scales are no numbers
    out = KERNELS.attend(put(q), put(k), put(v), at, attention).numpy()
    oracles.assert_close(out, expected, tolerance=ONE_TOKEN if T == 1 else PREFILL)


@pytest.mark.parametrize("start_pos", [0, 1, 31, 32, QUANTISED_CHUNK - 1, QUANTISED_CHUNK, QUANTISED_CHUNK + 1, 100, ROWS - 1])
def test_one_token_at_every_kind_of_position(start_pos: int) -> None:
    check(1, start_pos, 9, 3, 64)


@pytest.mark.parametrize("T, start_pos", [(2, 0), (17, 60), (70, ROWS - 70)])
def test_a_prefill_at_every_kind_of_position(T: int, start_pos: int) -> None:
    check(T, start_pos, 9, 3, 64)


@pytest.mark.slow
@pytest.mark.parametrize("heads, kv_heads, head_dim", SHAPES)
@pytest.mark.parametrize("T", [1, 20])
def test_every_shape_of_head(heads: int, kv_heads: int, head_dim: int, T: int) -> None:
    check(T, 100, heads, kv_heads, head_dim)
    check(T, 100, heads, kv_heads, head_dim, Attention(window=70))


@pytest.mark.parametrize("T", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_one_position_that_all_look_at_hides_no_other(T: int) -> None:
    """A weight far above the others is in a chunk of its own: those of other chunks are rounded by their own largest."""
    rng = np.random.default_rng(3)
    heads, kv_heads, head_dim, at = 3, 1, 64, ROWS - T
    k, v = floats(rng, kv_heads, ROWS, head_dim) * 0.01, floats(rng, kv_heads, ROWS, head_dim)
    k[:, 0], v[:, 0] = 1.0, 0.0
    q = np.full((T, heads, head_dim), 0.9, np.float32)  # e^7 times the weight of any other
    k, v = quantise(k), quantise(v)
    v[:, 1:QUANTISED_CHUNK, head_dim:] = 0
    expected = oracles.attend(q, dequantise(k), dequantise(v), at)
    oracles.assert_close(KERNELS.attend(put(q), put(k), put(v), at).numpy(), expected, tolerance=ONE_TOKEN)


@pytest.mark.slow
@pytest.mark.parametrize("attention", [Attention(window=20, softcap=30.0), Attention(scale=0.1)])
@pytest.mark.parametrize("T", [1, 20])
def test_soft_caps_and_scales_are_those_of_the_plain_set(attention: Attention, T: int) -> None:
    rng = np.random.default_rng(T)
    q, (k, v) = floats(rng, T, 4, 64), (quantise(floats(rng, 2, ROWS, 64)) for _ in range(2))
    ours, plain = (kernels.attend(put(q), put(k), put(v), 90, attention).numpy() for kernels in (KERNELS, PLAIN))
    oracles.assert_close(ours, plain.astype(np.float64), tolerance=ONE_TOKEN)


@pytest.mark.parametrize("T", [2, pytest.param(16, marks=pytest.mark.slow)])
@pytest.mark.parametrize("heads, kv_heads, head_dim", [SHAPES[0], *(pytest.param(*one, marks=pytest.mark.slow) for one in SHAPES[1:4])])
def test_each_row_of_a_batch_attends_as_it_does_alone(T: int, heads: int, kv_heads: int, head_dim: int) -> None:
    rng = np.random.default_rng(T)
    table = np.stack([rng.integers(0, SLOTS, T), rng.permutation(ROWS)[:T]]).astype(np.int32)
    q = floats(rng, T, heads, head_dim)
    k, v = (quantise(floats(rng, SLOTS, kv_heads, ROWS, head_dim)) for _ in range(2))
    out, plain = (kernels.attend(put(q), put(k), put(v), RowPositions(put(table))).numpy() for kernels in (KERNELS, PLAIN))
    for t, (slot, position) in enumerate(table.T):
        alone = KERNELS.attend(put(q[t : t + 1]), put(k[slot]), put(v[slot]), int(position)).numpy()[0]
        np.testing.assert_array_equal(out[t], alone)
        oracles.assert_close(plain[t], alone.astype(np.float64), tolerance=ONE_TOKEN)


@pytest.mark.sweep(2)
@pytest.mark.parametrize("type", ["Q4_1", pytest.param("F32", marks=pytest.mark.slow)])
@pytest.mark.parametrize("traits", ["", pytest.param("bias", marks=pytest.mark.slow), "norm"])
@pytest.mark.parametrize("T", [1, *(pytest.param(T, marks=pytest.mark.slow) for T in (2, 40))])
@pytest.mark.parametrize(
    "heads, kv_heads, head_dim",
    [(9, 3, 64), *(pytest.param(*one, marks=pytest.mark.slow) for one in [(3, 1, 32), (4, 2, 32), (3, 3, 96)])],
)
def test_keys_and_values_are_stored_as_numpy_quantises_them(
    type: str, traits: str, T: int, heads: int, kv_heads: int, head_dim: int
) -> None:
    rng = np.random.default_rng(T)
    sizes, position = (heads * head_dim, kv_heads * head_dim, kv_heads * head_dim), 7
    weights = [KERNELS.pack(oracles.random_matrix(rng, type, n, DIM), "CPU") for n in sizes]
    x, norm, rope = put(floats(rng, T, DIM)), put(floats(rng, DIM)), put(rope_table(ROWS, head_dim, head_dim, 1e4))
    transform = {
        "": None,
        "bias": HeadTransform(bias=put(floats(rng, sum(sizes)))),
        "norm": HeadTransform(norm=put(floats(rng, 2 * head_dim)), eps=EPS),
    }[traits]

    def stored(kind: object, elements: int) -> list[np.ndarray]:
        caches = [put(np.zeros((kv_heads, ROWS, elements), kind)) for _ in range(2)]
        out = KERNELS.norm_qkv(x, norm, EPS, *weights, rope, *caches, position, transform)
        Tensor.realize(*out)
        return [t.numpy() for t in out]

    (q, *exact), (q_too, *rows) = stored(np.float32, head_dim), stored(np.uint8, head_dim * 17 // 16)
    np.testing.assert_array_equal(q, q_too)
    for one, ours in zip(exact, rows, strict=True):
        assert (ours[:, :position] == 0).all() and (ours[:, position + T :] == 0).all()
        assert (quantise(one) == ours).mean() > 0.999  # all but what lies in the middle of two integers
        assert (np.abs(dequantise(ours) - one) <= scales_of(ours).repeat(32, axis=-1) * 0.5001 + 4e-6).all()
