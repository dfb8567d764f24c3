"""Tiny random models of every family against transformers' logits (python -m bench.families)."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from app.models.llama import Llama
from app.models.llama.checkpoint import open_checkpoint
from app.models.llama.checkpoint.conversion import convert
from tests.app.models.llama.conftest import KERNELS
from tests.reference.families import CONTEXT, FAMILIES, POSITIONS, ids_of, write_family

pytestmark = pytest.mark.slow

EXPECTED = np.load(Path(__file__).resolve().parents[3] / "data" / "families.npz")
PLACES = [("CPU", "twins"), ("CPU", "fused"), ("CL", "fused"), ("CL", "gpu")]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("families")


def load(folders: Path, name: str, device: str = "CPU", kernels: str = "fused", **options: bool) -> Llama:
    folder = write_family(name, folders / name)
    if device == "CL":
        from ext.tinygrad.backend import describe_device
        from ext.tinygrad.toolchain import BackendError

        try:
            describe_device(device)
        except BackendError as error:
            pytest.skip(str(error))
    return Llama.load(folder, CONTEXT, device=device, kernels=KERNELS[kernels](device), **options)


@pytest.mark.sweep
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("device, kernels", PLACES)
def test_logits_are_those_of_transformers(folders: Path, device: str, kernels: str, name: str) -> None:
    llama, expected = load(folders, name, device, kernels), EXPECTED[name]
    found = llama.logits(ids_of())[list(POSITIONS)]
    # what many tokens meet on a GPU without a matrix instruction are floats as well
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["llama", "qwen3", "cohere"])
def test_the_head_makes_those_of_transformers_out_of_the_hidden_states(folders: Path, name: str) -> None:
    """RMSNorm, a tied head, and LayerNorm without a bias: `hidden` norms in host memory."""
    llama, expected = load(folders, name), EXPECTED[name]
    weights = load_file(folders / name / "model.safetensors")
    head = weights["model.embed_tokens.weight" if llama.config.tied else "lm_head.weight"].astype(np.float32)
    found = np.concatenate(list(llama.hidden(ids_of(), llama.new_cache())))[list(POSITIONS)] @ head.T * llama.config.traits.logit_scale
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", FAMILIES)
def test_a_token_at_a_time_gives_the_same(folders: Path, name: str) -> None:
    """Through decode's own kernels, beyond every window, after a prompt that was prefilled."""
    llama, ids, expected = load(folders, name), ids_of(), EXPECTED[name]
    cache = llama.new_cache()
    llama.prefill(ids[:21], cache)
    last = {position: llama.engine.step(token, cache).copy() for position, token in enumerate(ids[21:], 21)}
    for row, position in enumerate(POSITIONS):
        if position >= 21:
            np.testing.assert_allclose(last[position], expected[row], rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", FAMILIES)
def test_eight_bit_weights_stay_close(folders: Path, name: str) -> None:
    """Integer weights and activations: the distribution of the next token is nearly the same."""
    llama, expected = load(folders, name, quantize=True), EXPECTED[name].astype(np.float64)
    found = llama.logits(ids_of())[list(POSITIONS)].astype(np.float64)
    p, q = (np.exp(x - x.max(-1, keepdims=True)) for x in (expected, found))
    p, q = p / p.sum(-1, keepdims=True), q / q.sum(-1, keepdims=True)
    divergence = (p * (np.log(p + 1e-30) - np.log(q + 1e-30))).sum(-1)
    # the larger a random model's logits, the more a rounding moves its certainty
    assert divergence.mean() < 5e-3 * max(1.0, np.abs(expected).max() / 8) ** 2


def test_every_key_that_changes_the_computation_is_known(folders: Path) -> None:
    unknown = {name: open_checkpoint(write_family(name, folders / name)).config.unknown_keys for name in FAMILIES}
    assert {name: keys for name, keys in unknown.items() if keys} == {"llama": ("partial_rotary_factor",)}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_gguf_of_it_computes_the_same(folders: Path, name: str) -> None:
    """Written and read again: names, orders of rows, fused tensors and metadata."""
    source = open_checkpoint(write_family(name, folders / name))
    llama, expected = Llama.load(convert(source, folders / f"{name}.gguf", "f32"), CONTEXT, device="CPU"), EXPECTED[name]
    found = llama.logits(ids_of())[list(POSITIONS)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
