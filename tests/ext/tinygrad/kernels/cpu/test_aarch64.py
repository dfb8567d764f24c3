"""The CPU kernels on ARM: built for aarch64 and run by qemu's user-mode emulation, against NumPy and against AVX2's bits.

Marked `emulated`, and left out by `make test`: `pytest -m emulated` runs them where a clang for aarch64 and qemu-user are installed
(Debian: apt install qemu-user clang).
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tinygrad import Tensor

from ext.tinygrad.kernels.cpu.cpu_kernels import CPUKernels
from ext.tinygrad.kernels.packed.packed_matrix import PackedMatrix
from ext.tinygrad.kernels.protocol import FULL_ATTENTION, Attention, HeadTransform, Routing
from tests.reference import emulated, oracles

KERNELS = CPUKernels()
HERE = Path(__file__).parent
ROOT = HERE.parents[4]
# without and with the dot product instruction, and with the matrix instruction as well
TARGETS = ["aarch64,cortex-a72", "aarch64,cortex-a76", "aarch64,neoverse-v1"]
pytestmark = [
    pytest.mark.emulated,
    pytest.mark.timeout(3000),
    pytest.mark.skipif(emulated.missing("aarch64") is not None, reason=str(emulated.missing("aarch64"))),
]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("file", ["matmul", "attend", "quantised_cache", "experts", "integers_between", "row_positions"])
def test_the_kernels_pass_this_machines_tests(target: str, file: str) -> None:
    own = str(HERE / f"test_{file}.py")
    # one counts launches, which an emulated kernel has none of
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not exhaustive", "-k", "not number_of_threads"]
    command += ["-p", "tests.reference.emulated", own]
    environment = os.environ | {"EMULATED": target, "DEV": "CPU"}
    environment.pop("PYTEST_XDIST_WORKER", None)
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:]


class EmulatedKernels(CPUKernels):
    """The kernels of `target`."""

    def __init__(self, target: str):
        self._launch = lambda *args: emulated.launch(*args, target=target)  # type: ignore[assignment]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("T", [1, 33])
@pytest.mark.parametrize("type", ["Q4_0", "Q4_K", "Q6_K", "Q8_0", "IQ4_NL", "Q2_K", "F16", "F32"])
def test_a_product_has_the_bits_of_avx2(target: str, type: str, T: int) -> None:
    rng = np.random.default_rng(T)
    matrix = oracles.random_matrix(rng, type, 75, 512)
    x, residual = (Tensor(rng.standard_normal((T, n)).astype(np.float32), device="CPU").realize() for n in (512, 75))
    ours, avx2 = (
        kernels.linear_residual(x, kernels.pack(matrix, "CPU"), residual).numpy()
        for kernels in (EmulatedKernels(target), EmulatedKernels("x86_64,haswell"))
    )
    np.testing.assert_array_equal(ours, avx2)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("T", [1, 33])
def test_attention_and_the_operations_of_relatives_have_the_bits_of_avx2(target: str, T: int) -> None:
    rng = np.random.default_rng(T)

    def put(*shape: int) -> Tensor:
        return Tensor(rng.standard_normal(shape).astype(np.float32), device="CPU").realize()

    def weight(rows: int, cols: int) -> PackedMatrix:
        return KERNELS.pack(oracles.random_matrix(rng, "Q4_0", rows, cols), "CPU")

    x, norm, rope = put(T, 64), put(64), put(64, 16, 2)
    wq, wk, wv, bias, head_norm = weight(128, 64), weight(64, 64), weight(64, 64), put(256), put(64)
    router, gate, up, down = (
        KERNELS.pack(oracles.random_matrix(rng, "F32", 16, 64), "CPU"),
        weight(256, 64),
        weight(256, 64),
        weight(512, 32),
    )
    caches = rng.standard_normal((2, 2, 64, 32)).astype(np.float32)

    def everything(kernels: CPUKernels) -> list[np.ndarray]:
        k, v = (Tensor(cache.copy(), device="CPU").realize() for cache in caches)
        found = []
        for heads in (HeadTransform(bias=bias), HeadTransform(norm=head_norm, eps=1e-5)):
            q, k, v = kernels.norm_qkv(x, norm, 1e-5, wq, wk, wv, rope, k, v, 7, heads)
            found += [t.numpy() for t in (q, k, v)]
            for attention in (FULL_ATTENTION, Attention(scale=0.3, window=9, softcap=20.0)):
                found.append(kernels.attend(q, k, v, 7, attention).numpy())
        routing = Routing(experts=8, used=2, normalize=True)
        found.append(kernels.experts_residual(x, norm, 1e-5, router, gate, up, down, routing, x).numpy())
        found.append(kernels.norm_residual(x, norm, 1e-5, x).numpy())
        found.append(kernels.layer_norm(x, norm, None, 1e-5).numpy())
        return found

    blocks = np.zeros((2, 2, 64, 34), np.uint8)

    def over_blocks(kernels: CPUKernels) -> list[np.ndarray]:
        k, v = (Tensor(cache.copy(), device="CPU").realize() for cache in blocks)
        q, k, v = kernels.norm_qkv(x, norm, 1e-5, wq, wk, wv, rope, k, v, 0)
        return [t.numpy() for t in (q, k, v)] + [kernels.attend(q, k, v, 0, Attention(window=9)).numpy()]

    for ours, avx2 in zip(over_blocks(EmulatedKernels(target)), over_blocks(EmulatedKernels("x86_64,haswell")), strict=True):
        assert np.isfinite(ours).all()
        np.testing.assert_array_equal(ours, avx2)
    for ours, avx2 in zip(everything(EmulatedKernels(target)), everything(EmulatedKernels("x86_64,haswell")), strict=True):
        assert np.isfinite(ours).all()
        np.testing.assert_array_equal(ours, avx2)
