"""Tiny models on every device and kernel set."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from app.models.llama import Llama
from ext.tinygrad.kernels import kernels_for
from ext.tinygrad.kernels.cpu.cpu_kernels import CPUKernels
from ext.tinygrad.kernels.gpu.gpu_kernels import GPUKernels
from ext.tinygrad.kernels.gpu.tuning import Tuning
from ext.tinygrad.kernels.protocol import Kernels
from ext.tinygrad.kernels.reference import ReferenceKernels
from tests.reference.tiny import make_tiny_gguf

KERNELS: dict[str, Callable[[str], Kernels]] = {
    "twins": lambda device: ReferenceKernels(),
    "fused": kernels_for,
    "gpu": lambda device: GPUKernels(Tuning("gpu", units=16, most_items=256, local_bytes=32 << 10)),  # as for a GPU
}


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """A tiny float32 model by its number of key/value heads (4 query heads)."""
    folder = tmp_path_factory.mktemp("tiny")

    def make(n_kv_heads: int) -> Path:
        file = folder / f"kv{n_kv_heads}.gguf"
        return make_tiny_gguf(file, n_kv_heads=n_kv_heads, dim=128, tied=n_kv_heads == 4, context_length=1024)

    return cache(make)


@pytest.fixture(scope="session")
def tiny_llama(tiny_file: Callable[[int], Path]) -> Callable[..., Llama]:
    """A tiny model on a device with a kernel set; each is loaded once, its graphs serve every test."""

    @cache
    def load(device: str = "CPU", kernels: str = "fused", n_kv_heads: int = 2, max_context: int = 200) -> Llama:
        return Llama.load(tiny_file(n_kv_heads), max_context, device=device, kernels=KERNELS[kernels](device))

    return load


@pytest.fixture(params=[("CPU", "fused"), ("CPU", "twins"), ("CL", "fused"), ("CL", "twins")], ids=lambda p: "-".join(p))
def place(request: pytest.FixtureRequest) -> tuple[str, str]:
    """(device, kernel set)."""
    device, kernels = request.param
    if device == "CL":
        from ext.tinygrad.backend import describe_device
        from ext.tinygrad.toolchain import BackendError

        try:
            describe_device(device)
        except BackendError as error:
            pytest.skip(str(error))
    elif kernels == "fused" and (reason := CPUKernels.available()):
        pytest.skip(reason)
    return device, kernels
