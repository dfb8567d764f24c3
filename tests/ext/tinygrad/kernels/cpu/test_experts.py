"""A mixture of experts on the CPU: what a token's neighbours change (nothing), and which experts' memory is read (that of those used)."""

import ctypes
import mmap
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tinygrad import Tensor

from ext.tinygrad.buffers import upload, view
from ext.tinygrad.kernels.cpu.cpu_kernels import CPUKernels
from ext.tinygrad.kernels.matrix import QuantMatrix
from ext.tinygrad.kernels.packed.packed_matrix import PackedMatrix
from ext.tinygrad.kernels.protocol import Routing
from tests.reference import oracles

KERNELS, EPS = CPUKernels(), 1e-5
ROOT = Path(__file__).parents[5]


def put(values: np.ndarray) -> Tensor:
    return upload(np.ascontiguousarray(values), "CPU")


def floats(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


@pytest.mark.sweep
@pytest.mark.slow
@pytest.mark.parametrize("types", [("Q4_0", "Q4_0"), ("Q4_K", "Q6_K"), ("Q8_0", "F16"), ("F32", "Q4_1"), ("IQ4_NL", "Q5_0")], ids="/".join)
@pytest.mark.parametrize("E, used, T", [(8, 2, 70), (8, 3, 5), (64, 6, 40), (2, 2, 16), (3, 1, 50)])
def test_a_token_is_computed_alike_alone_and_among_others(types: tuple[str, str], E: int, used: int, T: int) -> None:
    """To the last bit, whichever group of its expert's tokens it is in: 16, 4, or it alone."""
    rng, dim, hidden = np.random.default_rng(T), 256, 512
    gate, up = (KERNELS.pack(oracles.random_matrix(rng, type, E * hidden, dim), "CPU") for type in types)
    down = KERNELS.pack(oracles.random_matrix(rng, types[1], E * dim, hidden), "CPU")
    router = KERNELS.pack(oracles.random_matrix(rng, "Q8_0", E, dim), "CPU")  # integers are summed alike
    x, norm, residual, routing = floats(rng, T, dim), put(floats(rng, dim)), floats(rng, T, dim), Routing(E, used, True)

    def run(t: slice) -> np.ndarray:
        return KERNELS.experts_residual(put(x[t]), norm, EPS, router, gate, up, down, routing, put(residual[t])).numpy()

    together = run(slice(None))
    assert np.isfinite(together).all()
    for t in range(T):
        np.testing.assert_array_equal(together[t], run(slice(t, t + 1))[0])


USED = (1, 4)  # of eight experts


def guarded(T: int, forbidden: tuple[int, ...]) -> None:
    """A mixture whose tokens all use the experts USED, where reading a page of those `forbidden` ends the process."""
    rng, E, dim, hidden = np.random.default_rng(0), 8, 512, 1024
    towards = np.zeros((E, dim), np.float32)
    towards[USED[0]], towards[USED[1]] = 4 / dim, 2 / dim
    x, router = np.abs(floats(rng, T, dim)), KERNELS.pack(QuantMatrix.from_float32(towards), "CPU")
    weights = [
        KERNELS.pack(oracles.random_matrix(rng, "Q4_0", E * rows, cols), "CPU") for rows, cols in ((hidden, dim),) * 2 + ((dim, hidden),)
    ]

    def run() -> np.ndarray:
        norm = put(np.ones(dim, np.float32))
        return KERNELS.experts_residual(put(x), norm, EPS, router, *weights, Routing(E, 2, True), put(x)).numpy()

    expected = run()
    pages = sum(forbid(weight, e, E) for weight in weights for e in forbidden)
    assert pages > 60 * len(forbidden), "too few to tell"
    np.testing.assert_array_equal(run(), expected)


def forbid(weight: PackedMatrix, e: int, E: int) -> int:
    """Make the pages unreadable that hold nothing but expert e's; -> how many."""
    size, data = weight.nbytes // E, view(weight.data)
    start = -(-(data.ctypes.data + e * size) // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (data.ctypes.data + (e + 1) * size) // mmap.PAGESIZE * mmap.PAGESIZE
    assert ctypes.CDLL(None, use_errno=True).mprotect(ctypes.c_void_p(start), ctypes.c_size_t(end - start), 0) == 0, os.strerror(
        ctypes.get_errno()
    )
    return (end - start) // mmap.PAGESIZE


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="pages are guarded by mprotect")
@pytest.mark.parametrize("T", [1, 2, 40])
def test_experts_that_no_token_uses_are_not_read(T: int) -> None:
    def ended(forbidden: tuple[int, ...]) -> int:
        code = f"from tests.ext.tinygrad.kernels.cpu.test_experts import guarded; guarded({T}, {forbidden})"
        return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=300).returncode

    assert ended(tuple(set(range(8)) - set(USED))) == 0
    assert ended((USED[0],)) == -signal.SIGSEGV  # the guard is one
