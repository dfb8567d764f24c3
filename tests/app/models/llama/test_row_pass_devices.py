"""Steps of several conversations in one pass on devices behind a driver: each bit-equal to its own run alone."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from app.models.llama import Llama, SamplingParams
from app.models.llama.kv_cache import KVCache
from app.models.llama.lora.adapter import Adapter, LowRank, adaptable_shapes
from app.models.llama.shared_passes import NextTokens
from ext.tinygrad.kernels.gpu.operands import ROW_SIZES
from tests.reference.cuda_emulator.fixtures import cuda_emulator  # noqa: F401
from tests.reference.tiny import make_tiny_gguf

pytestmark = pytest.mark.slow
SLOTS = 3


PLACES = ["CL gpu f16", "CL  f16", "CUDA  f16", "CUDA  q8_0"]


@pytest.fixture(params=PLACES)
def llama(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Llama]:
    device, kernels, kv = request.param.split(" ")
    if device == "CUDA":
        request.getfixturevalue("cuda_emulator")
    else:
        request.getfixturevalue("opencl")
    monkeypatch.setenv("TUNE", "0")
    if kernels:
        monkeypatch.setenv("KERNELS", kernels)
    path = make_tiny_gguf(tmp_path / "tiny.gguf", type="Q4_0", embedding_type="F16", dim=128, n_heads=4, n_kv_heads=2, hidden_dim=256)
    llama = Llama.load(path, max_context=96, device=device, kv=kv)
    llama.share_passes(SLOTS, rows=4)
    assert llama.most_rows == next(T for T in llama.model.kernels.row_sizes(32) if T >= 4)
    assert llama.model.kernels.name != "gpu" or llama.model.kernels.row_sizes(32) == ROW_SIZES
    yield llama


def of_its_own(llama: Llama) -> KVCache:
    return KVCache(llama.config, 96, llama.model.rows, llama._cache_dtype, llama.device, llama._shifter, llama._identity)


def ids_of(seed: int, n: int) -> list[int]:
    return [int(i) for i in np.random.default_rng(seed).integers(0, 250, n)]


@pytest.mark.parametrize("llama", [*PLACES, pytest.param("CL gpu q8_0", marks=pytest.mark.exhaustive)], indirect=True)
def test_rows_of_several_conversations_are_computed_as_alone(llama: Llama) -> None:
    prompts = [ids_of(n, 12 + 9 * n) for n in range(SLOTS)]
    caches, alone = [llama.new_cache() for _ in prompts], [of_its_own(llama) for _ in prompts]
    assert [cache.slot for cache in caches] == [0, 1, 2] and alone[0].arena is None
    for cache, other, prompt in zip(caches, alone, prompts, strict=True):
        llama.prefill(prompt, cache)
        llama.prefill(prompt, other)
    for step in range(3):
        together = [n for n in range(SLOTS) if n != step]  # two of three: one joins, another leaves
        tokens = {n: ids_of(100 + 10 * step + n, 1 + (n == together[0])) for n in together}
        llama.compute_ahead([NextTokens(caches[n], tokens[n], llama.model) for n in together])
        for n in together:
            for token in tokens[n]:
                ours = llama.engine.step(token, caches[n]).copy()
                np.testing.assert_array_equal(ours, llama.engine.step(token, alone[n]))
    for cache, other in zip(caches, alone, strict=True):
        assert cache.tokens == other.tokens
        ours, theirs = cache.entries(len(cache.tokens)), other.entries(len(other.tokens))
        for name, values in ours.tensors.items():
            np.testing.assert_array_equal(values, theirs.tensors[name])


def test_a_slot_of_the_device_is_taken_again_and_leaves_its_neighbours_alone(llama: Llama) -> None:
    a, b, last = llama.new_cache(), llama.new_cache(), llama.new_cache()
    for cache in (a, b):
        llama.prefill(ids_of(1, 40), cache)
    before = b.entries(40).tensors
    slot = a.slot
    del a
    again = llama.new_cache()
    assert again.slot == slot != last.slot and not np.any(again.layers[1].v.numpy())
    llama.prefill(ids_of(2, 60), again)
    for name, values in b.entries(40).tensors.items():
        np.testing.assert_array_equal(values, before[name])


def test_speculation_says_what_decoding_alone_says(llama: Llama) -> None:
    from app.models.llama.speculation import PromptLookup

    prompt = ids_of(3, 10) * 3
    sampling = SamplingParams(temperature=0.7, seed=4)
    plain = list(llama.generate(prompt, 12, sampling, of_its_own(llama), frozenset()))
    llama.speculate(PromptLookup)
    assert list(llama.generate(prompt, 12, sampling, llama.new_cache(), frozenset())) == plain


def test_rows_through_an_adapter_are_computed_as_alone(llama: Llama) -> None:
    random, shapes = np.random.default_rng(5), adaptable_shapes(llama.config)
    matrices = {
        name: LowRank(random.standard_normal((8, cols), np.float32), random.standard_normal((rows, 8), np.float32), 0.02)
        for name, (rows, cols) in shapes.items()
        if name.startswith("layers.")
    }
    through = llama.adapted([(Adapter(matrices), 1.0)])
    through.share_passes(SLOTS, rows=4)
    caches, alone, prompt = [through.new_cache() for _ in range(2)], of_its_own(llama), ids_of(6, 20)
    assert through.adapters is not None
    alone.model = through.adapters.model
    for cache in (*caches, alone):
        llama.prefill(prompt, cache)
    assert all(llama.engine.sharing.shares(cache) for cache in caches)
    llama.compute_ahead([NextTokens(cache, prompt[:1], through.adapters.model) for cache in caches])
    expected = llama.engine.step(prompt[0], alone).copy()
    for cache in caches:
        np.testing.assert_array_equal(llama.engine.step(prompt[0], cache), expected)
