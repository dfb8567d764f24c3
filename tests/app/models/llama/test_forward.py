"""A pass as a whole: the same numbers on any number of threads, and a word instead of a crash where it cannot be compiled."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from app.models.llama import Llama
from app.models.llama.forward import CompileFailure
from ext.tinygrad.graph import installation
from ext.tinygrad.kernels.cpu.cpu_kernels import CPUKernels
from tests.reference.tiny import make_tiny_gguf

IDS = [(7 * i + 3) % 250 for i in range(150)]  # a chunk of every size


@pytest.fixture
def model(tmp_path: Path) -> Path:
    # wide enough that every kernel of decode has several tasks
    make_tiny_gguf(path := tmp_path / "tiny.gguf", type="Q4_0", dim=512, n_heads=8, n_kv_heads=2, hidden_dim=1024)
    return path


@pytest.mark.parametrize(
    "kernels, kv",
    [("1", "f16"), pytest.param("1", "q8_0", marks=pytest.mark.slow), pytest.param("0", "f16", marks=pytest.mark.slow)],
)
def test_results_are_the_same_to_the_last_bit_on_one_to_five_threads(kernels, kv, model, monkeypatch) -> None:
    monkeypatch.setenv("KERNELS", kernels)
    llama = Llama.load(model, max_context=256, device="CPU", kv=kv)
    if kernels == "1" and llama.model.kernels.name != CPUKernels.name:
        pytest.skip("no CPU kernels here")

    def answer() -> list[np.ndarray]:
        cache = llama.new_cache()
        llama.prefill(IDS, cache)
        return [llama.engine.step(token, cache).copy() for token in (5, 6, 7)]

    try:
        if not installation.install(1):
            pytest.skip("no native graphs here")
        alone = answer()
        for threads in range(2, 6):
            installation.install(threads)
            for one, other in zip(alone, answer(), strict=True):
                np.testing.assert_array_equal(one, other)
    finally:
        installation.install()


def test_a_compiler_that_gives_up_is_named_with_what_to_do(model, monkeypatch) -> None:
    from tinygrad.runtime.support.compiler_cpu import ClangCompiler

    def give_up(self: ClangCompiler, source: str) -> bytes:
        raise subprocess.CalledProcessError(1, ["/usr/bin/clang-99", "-c"])

    # the compile cache must not know these kernels: no other test has this head size with these widths
    make_tiny_gguf(model, type="Q4_0", dim=96, n_heads=3, n_kv_heads=1, hidden_dim=160)
    llama = Llama.load(model, max_context=37, device="CPU")
    monkeypatch.setattr(ClangCompiler, "compile", give_up)
    monkeypatch.setattr("tinygrad.helpers.CACHELEVEL.value", 0)
    with pytest.raises(CompileFailure, match=r"clang-99 cannot compile .* embed .*exit code 1.*KERNELS=0"):
        llama.logits([1, 2, 3])
