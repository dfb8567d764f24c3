"""The façade: what it says of itself, what it refuses, and how far the default model's logits are from float32."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from app.models.llama import Llama
from app.models.llama.checkpoint import CheckpointError
from app.models.llama.config import ConfigError
from ext.tinygrad.kernels.reference import ReferenceKernels
from tests.reference.compare import Reference, overall


def test_loading_tells_every_byte_and_names_the_device(tiny_file: Callable[[int], Path]) -> None:
    seen: list[tuple[int, int]] = []
    llama = Llama.load(tiny_file(2), 64, lambda *progress: seen.append(progress))
    assert seen == sorted(seen) and seen[-1][0] == seen[-1][1] > 0
    assert llama.device == "CPU" and llama.backend.kind == "cpu" and not llama.backend.is_gpu
    assert llama.tokenizer.decode(llama.tokenizer.encode("hello there", bos=False)) == "hello there"


@pytest.mark.parametrize("max_context", [1025, 9000])
def test_a_window_beyond_the_models_is_refused_with_its_own(max_context: int, tiny_file: Callable[[int], Path]) -> None:
    with pytest.raises(ConfigError, match=f"--max-context {max_context} exceeds the 1024 tokens"):
        Llama.load(tiny_file(2), max_context)


@pytest.mark.parametrize("max_context", [0, -5])
def test_a_window_of_nothing_is_refused(max_context: int, tiny_file: Callable[[int], Path]) -> None:
    with pytest.raises(ConfigError, match="holds no token"):
        Llama.load(tiny_file(2), max_context)


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere.gguf"):
        Llama.load(tmp_path / "nowhere.gguf")


@pytest.mark.weights
class TestDefaultModelAgainstFloat32:
    """Teacher-forced logits over the prompts of 1, 31, 32, 33, 200 and 900 tokens that bench/reference.py stored."""

    @pytest.mark.slow
    def test_the_plain_tensor_path_is_float32_but_for_its_cache(self, default_model: Path) -> None:
        llama, stored = Llama.load(default_model, kernels=ReferenceKernels()), Reference.load()
        top1, kl = overall(llama.logits, stored)
        assert top1 >= 0.995
        assert kl < 1e-4

    def test_the_default_path_is_no_farther_from_float32_than_llama_cpp(self, default_model: Path) -> None:
        llama, stored = Llama.load(default_model), Reference.load()
        top1, kl = overall(llama.logits, stored)
        assert kl <= 1.15 * stored.llama_cpp["all"]["kl"]
        assert top1 >= stored.llama_cpp["all"]["top1"] - 0.01

    def test_decoding_is_no_farther_from_float32_than_llama_cpp(self, default_model: Path) -> None:
        llama, stored = Llama.load(default_model), Reference.load()
        cache = llama.new_cache()

        def step_by_step(ids: list[int]) -> np.ndarray:
            cache.truncate(0)
            return np.stack([llama.engine.step(token, cache).copy() for token in ids])

        _, kl = overall(step_by_step, stored)
        assert kl <= 1.15 * stored.llama_cpp["all, token by token"]["kl"]
