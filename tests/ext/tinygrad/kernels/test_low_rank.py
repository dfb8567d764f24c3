"""Low-rank changes of packed weights on every kernel set, against NumPy; and one token against many."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tinygrad import Tensor, dtypes

from ext.tinygrad.backend import describe_device
from ext.tinygrad.kernels import kernels_for
from ext.tinygrad.kernels.cpu.cpu_kernels import CPUKernels
from ext.tinygrad.kernels.gpu.gpu_kernels import GPUKernels
from ext.tinygrad.kernels.gpu.tuning import Tuning
from ext.tinygrad.kernels.low_rank import AdaptedWeight
from ext.tinygrad.kernels.matrix import QuantMatrix
from ext.tinygrad.kernels.protocol import HeadTransform, Kernels, RowPositions, rope_table
from ext.tinygrad.kernels.reference import ReferenceKernels
from ext.tinygrad.toolchain import BackendError
from tests.reference import oracles
from tests.reference.cuda_emulator.fixtures import cuda_emulator  # noqa: F401

pytestmark = pytest.mark.slow

EPS = 1e-5
SETS: dict[str, tuple[str, Callable[[], Kernels]]] = {
    "cpu": ("CPU", CPUKernels),
    "tinygrad": ("CPU", ReferenceKernels),
    "opencl-cpu": ("CL", lambda: kernels_for("CL")),
    "opencl": ("CL", lambda: GPUKernels(Tuning("gpu", units=16, most_items=256, local_bytes=32 << 10))),  # as for a GPU
    "cuda": ("CUDA", lambda: GPUKernels(Tuning.of("CUDA"))),  # emulated: matrix instruction and shuffles
    "cuda-floats": ("CUDA", lambda: GPUKernels(replace(Tuning.of("CUDA"), ptx=70))),  # without the matrix instruction
}
CASES = [pytest.param(name, marks=[pytest.mark.costly, pytest.mark.slow]) if device == "CL" else name for name, (device, _) in SETS.items()]
TYPES = ["F32", "Q4_1", "Q4_K", "F16"]


DEVICE = "CPU"


def put(values: np.ndarray) -> Tensor:
    return Tensor(values, device=DEVICE).realize()


@pytest.fixture
def kernels(request: pytest.FixtureRequest) -> Iterator[Kernels]:
    """A kernel set by its name, on its device."""
    global DEVICE
    DEVICE, make = SETS[request.param]
    if DEVICE == "CUDA":
        request.getfixturevalue("cuda_emulator")
    if DEVICE == "CL":
        try:
            describe_device(DEVICE)
        except BackendError as error:
            pytest.skip(str(error))
    yield make()
    DEVICE = "CPU"


def floats(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


class Changed:
    """A weight with a change, and what it comes to."""

    def __init__(
        self, rng: np.random.Generator, kernels: Kernels, type: str, rows: int, cols: int, ranks: tuple[int, ...], gain: bool
    ) -> None:
        self.matrix = oracles.random_matrix(rng, type, rows, cols)
        self.changes = [(floats(rng, r, cols), floats(rng, rows, r) * 0.1) for r in ranks]
        self.gain = 1 + 0.3 * floats(rng, rows) if gain else None
        self.weight = AdaptedWeight.of(kernels.pack(self.matrix, DEVICE), self.changes, self.gain, DEVICE, exact=type == "F32")

    def of(self, x: np.ndarray, product: np.ndarray) -> np.ndarray:
        """`product` is x times the weight as it is."""
        change: Any = sum((x @ a.T) @ b.T for a, b in self.changes)
        return (product if self.gain is None else product * self.gain) + change


def values(out: Tensor, cols: int) -> np.ndarray:
    """What a product gave, as float32 (T, cols): on GPUs of few tokens a buffer of activations begins with it."""
    found = out.numpy()
    return np.ascontiguousarray(found[:, : 4 * cols]).view(np.float32) if out.dtype == dtypes.uint8 else found


def close(found: np.ndarray, expected: np.ndarray, type: str, kernels: Kernels) -> None:
    """Changes are halves but for float32 weights; products of integers meet int8 activations on the CPU's set."""
    rough = 3e-2 if type.startswith("Q") and kernels.name != "tinygrad" else 2e-3 if type != "F32" else 1e-5
    assert np.abs(found - expected).max() < rough * np.abs(expected).max()


@pytest.mark.sweep(1, "kernels, T")
@pytest.mark.parametrize("T", [1, 4, 33])
@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("ranks, gain", [((8,), False), ((3, 10), True)])
@pytest.mark.parametrize("kernels", CASES, indirect=True)
def test_linear(kernels: Kernels, type: str, T: int, ranks: tuple[int, ...], gain: bool) -> None:
    rng = np.random.default_rng(T)
    changed = Changed(rng, kernels, type, 75, 256, ranks, gain)
    x, norm, residual, bias = floats(rng, T, 256), floats(rng, 256), floats(rng, T, 75), floats(rng, 75)
    h = oracles.rms_norm(x, norm, EPS)
    matrix = changed.matrix.dequantize()
    found = kernels.norm_linear(put(x), put(norm), EPS, changed.weight).numpy()
    close(found, changed.of(h, h @ matrix.T), type, kernels)
    found = kernels.linear_residual(put(x), changed.weight, put(residual), None, put(bias), 0.5).numpy()
    close(found, residual + 0.5 * (changed.of(x, x @ matrix.T) + bias), type, kernels)


@pytest.mark.sweep
@pytest.mark.parametrize("T", [1, 4, 33])
@pytest.mark.parametrize("type", ["F32", "Q4_1"])
@pytest.mark.parametrize("which", ["both", "gate", "up"])
@pytest.mark.parametrize("kernels", CASES, indirect=True)
def test_gated(kernels: Kernels, which: str, type: str, T: int) -> None:
    rng = np.random.default_rng(T)
    gate, up = (Changed(rng, kernels, type, 75, 256, ranks, ranks == (4,)) for ranks in ((8,), (4,)))
    x, norm = floats(rng, T, 256), floats(rng, 256)
    h = oracles.rms_norm(x, norm, EPS)
    g, u = h @ gate.matrix.dequantize().T, h @ up.matrix.dequantize().T
    weights = [gate.weight if which != "up" else gate.weight.base, up.weight if which != "gate" else up.weight.base]
    g, u = g if which == "up" else gate.of(h, g), u if which == "gate" else up.of(h, u)
    close(values(kernels.norm_gated(put(x), put(norm), EPS, *weights), 75), g / (1 + np.exp(-g)) * u, type, kernels)


@pytest.mark.sweep(1, "kernels, T")
@pytest.mark.parametrize("T", [1, 4, 33])
@pytest.mark.parametrize("type", ["F32", "Q4_1"])
@pytest.mark.parametrize("adapted", ["qkv", "qv", "k"])
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("kernels", CASES, indirect=True)
def test_queries_keys_and_values(kernels: Kernels, adapted: str, normed: bool, type: str, T: int) -> None:
    rng = np.random.default_rng(T)
    heads = {"q": 6, "k": 2, "v": 2}
    all_of = {part: Changed(rng, kernels, type, n * 32, 256, (4 if part == "k" else 8,), part == "v") for part, n in heads.items()}
    weights = [all_of[part].weight if part in adapted else all_of[part].weight.base for part in heads]
    x, norm, rope = floats(rng, T, 256), floats(rng, 256), rope_table(64, 32, 32, 10000.0)
    transform = HeadTransform(None, put(1 + 0.1 * floats(rng, 64)), eps=EPS) if normed else None
    cache_k, cache_v = (put(np.zeros((2, 64, 32), np.float32)) for _ in "kv")
    found = kernels.norm_qkv(put(x), put(norm), EPS, *weights, put(rope), cache_k, cache_v, 3, transform)
    q, k, v = (t.numpy() for t in found)
    h = oracles.rms_norm(x, norm, EPS)
    plain = ReferenceKernels()
    merged = []
    for part in heads:
        matrix = all_of[part].matrix.dequantize()
        if part in adapted:
            ((a, b),) = all_of[part].changes
            gain = all_of[part].gain
            matrix = (matrix if gain is None else gain[:, None] * matrix) + b @ a
        merged.append(plain.pack(QuantMatrix.from_float32(matrix), DEVICE))
    cache_k, cache_v = (put(np.zeros((2, 64, 32), np.float32)) for _ in "kv")
    expected = plain.norm_qkv(put(h), None, EPS, *merged, put(rope), cache_k, cache_v, 3, transform)
    for one, other in zip((q, k, v), expected, strict=True):
        close(one, other.numpy(), type, kernels)


@pytest.mark.sweep
@pytest.mark.parametrize("T", [1, 9])
@pytest.mark.parametrize("type", ["F32", "Q4_1"])
@pytest.mark.parametrize("gain", [False, True])
@pytest.mark.parametrize("kernels", CASES, indirect=True)
def test_embedding(kernels: Kernels, gain: bool, type: str, T: int) -> None:
    rng = np.random.default_rng(T)
    matrix = oracles.random_matrix(rng, type, 75, 64)
    changes = [(floats(rng, r, 75), floats(rng, 64, r)) for r in (3, 4)]
    by = 1 + 0.2 * floats(rng, 64) if gain else None
    weight = AdaptedWeight.of_embedding(kernels.pack(matrix, DEVICE), changes, by, DEVICE, exact=type == "F32")
    ids = rng.integers(0, 75, T).astype(np.int32)
    whole = matrix.dequantize() * (1 if by is None else by) + sum(a.T @ b.T for a, b in changes)
    close(kernels.embed(put(ids), weight, 2.0).numpy(), 2 * whole[ids], type, kernels)
    np.testing.assert_allclose(weight.to_tensor().numpy(), whole, atol=2e-3 * np.abs(whole).max())


ALIKE = [case for case in CASES if case != "tinygrad"]


@pytest.mark.sweep
@pytest.mark.parametrize("type", ["Q4_1", "F32"])
@pytest.mark.parametrize("T", [2, 8, 16])
@pytest.mark.parametrize("kernels", ALIKE, indirect=True)
def test_a_row_is_summed_alike_alone_and_among_others(kernels: Kernels, T: int, type: str) -> None:
    """In a pass over rows, a change is to the last bit what it is in a pass of one token."""
    rng, (heads, head_dim, dim) = np.random.default_rng(T), (2, 32, 256)
    changed, other = (Changed(rng, kernels, type, 96, dim, (r,), r == 8) for r in (8, 12))
    qkv = [Changed(rng, kernels, type, heads * head_dim, dim, (8,), gain).weight for gain in (False, True, False)]
    head = AdaptedWeight.of_embedding(
        kernels.pack(changed.matrix, DEVICE), [(floats(rng, 4, 96), floats(rng, dim, 4))], None, DEVICE, False
    )
    x, norm, residual, rope = floats(rng, T, dim), put(floats(rng, dim)), floats(rng, T, 96), put(rope_table(64, 32, 32, 10000.0))

    def run(t: slice) -> list[np.ndarray]:
        rows, n = put(x[t]), len(x[t])
        caches = [put(np.zeros((T, heads, 64, head_dim), np.float32)) for _ in "kv"]
        at = RowPositions(put(np.stack([np.arange(T)[t], 3 * np.arange(T)[t]]).astype(np.int32)))
        q, k, v = kernels.norm_qkv(rows, norm, EPS, *qkv, rope, *caches, at)
        Tensor.realize(q, k, v)
        slots = np.arange(T)[t]
        return [
            kernels.norm_linear(rows, norm, EPS, changed.weight).numpy(),
            kernels.linear_residual(rows, other.weight, put(residual[t])).numpy(),
            values(kernels.norm_gated(rows, norm, EPS, changed.weight, other.weight), 96),
            kernels.embed(put(np.arange(T)[t].astype(np.int32)), head).numpy(),
            q.numpy().reshape(n, -1),
            *(cache.numpy()[slots, :, 3 * slots] for cache in (k, v)),
        ]

    together = run(slice(None))
    for t in (0, 1, T - 1):
        for ours, alone in zip(together, run(slice(t, t + 1)), strict=True):
            np.testing.assert_array_equal(ours[t], alone[0])


@pytest.mark.sweep
@pytest.mark.parametrize("type", ["Q4_1", "F32"])
@pytest.mark.parametrize("kernels", ALIKE, indirect=True)
def test_a_token_of_a_prompt_is_summed_alike_wherever_it_is_cut(kernels: Kernels, type: str) -> None:
    rng = np.random.default_rng(0)
    changed = Changed(rng, kernels, type, 80, 256, (8,), True)
    x, norm = floats(rng, 70, 256), put(floats(rng, 256))
    together = kernels.norm_linear(put(x), norm, EPS, changed.weight).numpy()
    parts = [kernels.norm_linear(put(part), norm, EPS, changed.weight).numpy() for part in np.split(x, [33, 50])]
    np.testing.assert_array_equal(together, np.concatenate(parts))


def test_small_and_large_numbers_survive_as_halves() -> None:
    """A pair of a row of A and a column of B is made evenly large, by a power of two."""
    rng = np.random.default_rng(1)
    a, b = floats(rng, 4, 32) * 3e5, floats(rng, 16, 4) * 1e-7
    weight = AdaptedWeight.of(CPUKernels().pack(oracles.random_matrix(rng, "Q8_0", 16, 32), "CPU"), [(a, b)], None, "CPU", exact=False)
    base = weight.base.to_tensor().numpy()
    np.testing.assert_allclose(weight.to_tensor().numpy() - base, b @ a, atol=2e-3 * np.abs(b @ a).max())
