"""What relatives of LLaMA need of the operations, against NumPy in float64: on the plain-Tensor set, the CPU's kernels, and those for GPUs
in both dialects."""

import sys

import numpy as np
import pytest
from tinygrad import Tensor

from ext.tinygrad.backend import describe_device
from ext.tinygrad.buffers import upload
from ext.tinygrad.kernels.cpu.cpu_kernels import CPUKernels
from ext.tinygrad.kernels.gpu.gpu_kernels import GPUKernels
from ext.tinygrad.kernels.gpu.tuning import Tuning
from ext.tinygrad.kernels.matrix import QuantMatrix
from ext.tinygrad.kernels.protocol import Attention, HeadTransform, Kernels, Routing, rope_table
from ext.tinygrad.kernels.reference import ReferenceKernels
from ext.tinygrad.toolchain import BackendError
from tests.reference.cuda_emulator.fixtures import cuda_emulator  # noqa: F401

HEADS, KV_HEADS, HEAD_DIM, DIM, HIDDEN, ROWS = 4, 2, 32, 64, 96, 160
EPS = 1e-5

pytestmark = pytest.mark.slow  # many shapes


DEVICE = "CPU"


@pytest.fixture(params=["plain", "cpu", pytest.param("CL", marks=[pytest.mark.costly, pytest.mark.slow]), "CUDA"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Kernels:
    if request.param in ("plain", "cpu"):
        return ReferenceKernels() if request.param == "plain" else CPUKernels()
    if request.param == "CUDA":
        request.getfixturevalue("cuda_emulator")
        tuning = Tuning.of("CUDA")
    else:
        try:
            describe_device("CL")
        except BackendError as error:
            pytest.skip(str(error))
        tuning = Tuning("gpu", units=16, most_items=256, local_bytes=32 << 10)
    monkeypatch.setattr(sys.modules[__name__], "DEVICE", request.param)
    return GPUKernels(tuning)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def numbers(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def packed(kernels: Kernels, values: np.ndarray) -> object:
    return kernels.pack(QuantMatrix.from_float32(values), DEVICE)


def put(values: np.ndarray) -> Tensor:
    return upload(np.ascontiguousarray(values), DEVICE)


def rms(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS) * weight


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def close(found: Tensor, expected: np.ndarray, scale: float = 1e-5) -> None:
    values = found.numpy()
    if values.dtype == np.uint8:  # a buffer of activations begins with its floats
        values = np.ascontiguousarray(values[:, : 4 * expected.shape[1]]).view(np.float32)
    np.testing.assert_allclose(values, expected, rtol=0, atol=scale * max(1.0, float(np.abs(expected).max())))


@pytest.mark.sweep(1, "kernels, T")
@pytest.mark.parametrize("T", [1, 32])
@pytest.mark.parametrize("norm", ["", "head", "all"])
@pytest.mark.parametrize("bias", [False, True])
def test_heads_get_their_bias_and_norm_before_they_turn(kernels, rng, T: int, norm: str, bias: bool) -> None:
    x, weights = numbers(rng, T, DIM), [numbers(rng, n * HEAD_DIM, DIM) / 8 for n in (HEADS, KV_HEADS, KV_HEADS)]
    biases = numbers(rng, (HEADS + 2 * KV_HEADS) * HEAD_DIM)
    size = 2 * HEAD_DIM if norm == "head" else (HEADS + KV_HEADS) * HEAD_DIM
    scales = numbers(rng, size) * 0.2 + 1
    start, table = 7, rope_table(ROWS, HEAD_DIM, HEAD_DIM, 10_000.0)
    caches = [put(np.zeros((KV_HEADS, ROWS, HEAD_DIM), np.float32)) for _ in "kv"]
    heads = HeadTransform(put(biases) if bias else None, put(scales) if norm else None, norm != "all", EPS)
    ones = np.ones(DIM, np.float32)
    found = kernels.norm_qkv(put(x), put(ones), EPS, *(packed(kernels, w) for w in weights), put(table), *caches, start, heads)

    h = rms(x, ones)
    q, k, v = (h @ w.T.astype(np.float64) for w in weights)
    if bias:
        ends = np.cumsum([w.shape[0] for w in weights])
        q, k, v = q + biases[: ends[0]], k + biases[ends[0] : ends[1]], v + biases[ends[1] :]
    if norm == "head":
        q, k = (rms(a.reshape(T, -1, HEAD_DIM), s).reshape(T, -1) for a, s in ((q, scales[:HEAD_DIM]), (k, scales[HEAD_DIM:])))
    elif norm == "all":
        q, k = rms(q, scales[: q.shape[1]]), rms(k, scales[q.shape[1] :])
    turn = table[start : start + T, :, 0] + 1j * table[start : start + T, :, 1]

    def turned(a: np.ndarray) -> np.ndarray:
        pairs = a.reshape(T, -1, HEAD_DIM // 2, 2)
        complexes = (pairs[..., 0] + 1j * pairs[..., 1]) * turn[:, None]
        return np.stack([complexes.real, complexes.imag], -1).reshape(T, -1, HEAD_DIM)

    close(found[0], turned(q))
    for cache, expected in ((found[1], turned(k)), (found[2], v.reshape(T, -1, HEAD_DIM))):
        close(cache[:, start : start + T], expected.transpose(1, 0, 2))


@pytest.mark.sweep(1, "kernels, T")
@pytest.mark.parametrize("T, start", [(1, 0), (1, 5), (1, 100), (32, 0), (32, 90)])
@pytest.mark.parametrize("attention", [Attention(window=9), Attention(window=64), Attention(softcap=2.0), Attention(0.3, 33, 1.5)])
def test_attention_has_a_window_a_cap_and_a_scale(kernels, rng, T: int, start: int, attention: Attention) -> None:
    q, caches = numbers(rng, T, HEADS, HEAD_DIM), [numbers(rng, KV_HEADS, ROWS, HEAD_DIM) for _ in "kv"]
    found = kernels.attend(put(q), put(caches[0]), put(caches[1]), start, attention)
    k, v = (np.repeat(cache, HEADS // KV_HEADS, axis=0).astype(np.float64) for cache in caches)
    scores = np.einsum("thd,hsd->hts", q, k) * attention.scale_of(HEAD_DIM)
    if attention.softcap:
        scores = attention.softcap * np.tanh(scores / attention.softcap)
    positions, limits = np.arange(ROWS), start + np.arange(T)[:, None]
    seen = (positions <= limits) & (positions > limits - (attention.window or ROWS))
    weights = np.where(seen, np.exp(scores), 0)
    expected = np.einsum("hts,hsd->thd", weights / weights.sum(-1, keepdims=True), v)
    close(found, expected.reshape(T, -1), 3e-5)


@pytest.mark.sweep
@pytest.mark.parametrize("T", [1, 32])
def test_products_take_bias_scale_and_cap(kernels, rng, T: int) -> None:
    x, w, residual, bias = numbers(rng, T, DIM), numbers(rng, HIDDEN, DIM) / 8, numbers(rng, T, HIDDEN), numbers(rng, HIDDEN)
    weight = packed(kernels, w)
    product = x.astype(np.float64) @ w.T
    close(kernels.linear_residual(put(x), weight, put(residual), None, put(bias), 0.25), residual + 0.25 * (product + bias))
    close(kernels.norm_linear(put(x), None, EPS, weight, 0.5, 3.0), 3 * np.tanh(0.5 * product / 3))
    out = put(np.zeros((T, HIDDEN), np.float32))
    close(kernels.norm_residual(put(residual), put(bias), EPS, put(residual), out), residual + rms(residual, bias))
    ids = np.arange(T, dtype=np.int32) % HIDDEN
    close(kernels.embed(put(ids), weight, 1.5), 1.5 * w[ids])


@pytest.mark.sweep
@pytest.mark.parametrize("T", [1, 32])
@pytest.mark.parametrize("activation", ["silu", "gelu"])
def test_gated_units_take_other_activations_and_biases(kernels, rng, T: int, activation: str) -> None:
    x, gate, up, bias = numbers(rng, T, DIM), numbers(rng, HIDDEN, DIM) / 8, numbers(rng, HIDDEN, DIM) / 8, numbers(rng, 2 * HIDDEN)
    ones = np.ones(DIM, np.float32)
    found = kernels.norm_gated(put(x), put(ones), EPS, packed(kernels, gate), packed(kernels, up), activation, put(bias))
    h = rms(x, ones)
    act = silu if activation == "silu" else gelu
    close(found, act(h @ gate.T + bias[:HIDDEN]) * (h @ up.T + bias[HIDDEN:]), 3e-5)


@pytest.mark.sweep
@pytest.mark.parametrize("T", [1, 32])
@pytest.mark.parametrize("cols", [DIM, 40])
@pytest.mark.parametrize("bias", [False, True])
def test_layer_norm_takes_the_mean_away(kernels, rng, T: int, cols: int, bias: bool) -> None:
    x, weight, shift = numbers(rng, T, cols) + 3, numbers(rng, cols), numbers(rng, cols)
    found = kernels.layer_norm(put(x), put(weight), put(shift) if bias else None, EPS)
    close(found, rms(x - x.astype(np.float64).mean(-1, keepdims=True), weight) + (shift if bias else 0))


@pytest.mark.sweep(1, "kernels, T")
@pytest.mark.parametrize("T", [1, 32])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("type", ["F32", "Q8_0"])
def test_a_mixture_adds_its_likeliest_experts(kernels, rng, T: int, normalize: bool, type: str) -> None:
    E, used, hidden = 8, 3, 64
    x, router = numbers(rng, T, DIM), numbers(rng, E, DIM)
    gate, up, down = (numbers(rng, E * rows, cols) / 8 for rows, cols in ((hidden, DIM), (hidden, DIM), (DIM, hidden)))
    residual, ones = numbers(rng, T, DIM), np.ones(DIM, np.float32)
    matrices = [QuantMatrix.from_float32(w, type) for w in (gate, up, down)]
    weights = [kernels.pack(matrix, DEVICE) for matrix in matrices]
    routing = Routing(E, used, normalize)
    found = kernels.experts_residual(put(x), put(ones), EPS, packed(kernels, router), *weights, routing, put(residual))
    gate, up, down = (matrix.dequantize().astype(np.float64) for matrix in matrices)
    h = rms(x, ones)
    logits = h @ router.T
    chances = np.exp(logits - logits.max(-1, keepdims=True))
    chances /= chances.sum(-1, keepdims=True)
    expected = residual.astype(np.float64)
    for t in range(T):
        chosen = np.argsort(-chances[t])[:used]
        shares = chances[t][chosen] / (chances[t][chosen].sum() if normalize else 1)
        for e, share in zip(chosen, shares, strict=True):
            rows, columns = slice(e * hidden, (e + 1) * hidden), slice(e * DIM, (e + 1) * DIM)
            expected[t] += share * ((silu(h[t] @ gate[rows].T) * (h[t] @ up[rows].T)) @ down[columns].T)
    close(found, expected, 3e-5 if type == "F32" else 2e-2)  # activations that meet integers are 8 bits
