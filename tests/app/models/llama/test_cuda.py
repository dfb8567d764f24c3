"""A whole model on the emulated CUDA device: prefill on the matrix instruction, decode, shift, ids drawn from what the device ranked."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from app.models.llama import Llama, SamplingParams
from tests.reference import llama_numpy
from tests.reference.compare import log_softmax
from tests.reference.cuda_emulator.emulator import CUDAEmulator
from tests.reference.cuda_emulator.fixtures import cuda_emulator  # noqa: F401
from tests.reference.tiny import make_tiny_gguf

pytestmark = pytest.mark.slow

IDS = [int(i) for i in np.random.default_rng(5).integers(0, 250, 200)]
TYPES = ["F32", "F16", "Q4_0", "Q8_0"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tiny")
    shape = {"dim": 128, "n_heads": 4, "n_kv_heads": 2, "hidden_dim": 192, "context_length": 1024}
    return {type: make_tiny_gguf(folder / f"{type}.gguf", type=type, **shape) for type in TYPES}


@pytest.fixture
def load(cuda_emulator: CUDAEmulator, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Llama]]:  # noqa: F811
    monkeypatch.setenv("TUNE", "0")
    yield lambda type, device="CUDA", kv="f16": Llama.load(files[type], 400, device=device, kv=kv)


def run(llama: Llama, cut: int = 180) -> np.ndarray:
    """Logits after ids from `cut` on, each put in by a step; what is before it is prefilled."""
    cache = llama.new_cache()
    llama.prefill(IDS[:cut], cache)
    return np.stack([llama.engine.step(token, cache).copy() for token in IDS[cut : cut + 4]])


# Q8_0 takes the way of Q4_0; its products are those of tests/ext/tinygrad/kernels/gpu/test_operations.py
@pytest.mark.parametrize("type", [pytest.param(type, marks=pytest.mark.exhaustive) if type == "Q8_0" else type for type in TYPES])
def test_a_model_on_cuda_agrees_with_numpy(type: str, load: Callable[..., Llama], files: dict[str, Path]) -> None:
    expected = log_softmax(llama_numpy.logits(IDS[:184], *llama_numpy.read_gguf(files[type]))[180:])
    llama = load(type)
    assert llama.model.kernels.name == "gpu" and llama.device == "CUDA"
    ours, cpus = log_softmax(run(llama)), log_softmax(run(load(type, "CPU")))

    def distance(logits: np.ndarray) -> float:
        return float((np.exp(expected) * (expected - logits)).sum(-1).mean())

    assert distance(ours) <= 1.15 * distance(cpus) + 1e-6


@pytest.mark.parametrize("type", ["F32", "Q4_0"])
def test_contexts_of_8_bit_blocks_are_as_far_from_floats_as_the_cpus(type: str, load: Callable[..., Llama]) -> None:
    exact, cpus = (log_softmax(run(load(type, "CPU", kv))) for kv in ("f16", "q8_0"))
    ours = log_softmax(run(load(type, kv="q8_0")))

    def distance(one: np.ndarray, other: np.ndarray) -> float:
        return float((np.exp(one) * (one - other)).sum(-1).mean())

    assert 0 < distance(exact, ours) < 2 * distance(exact, cpus) + distance(exact, log_softmax(run(load(type))))


@pytest.mark.parametrize("type, kv", [("F32", "f16"), ("Q4_0", "f16"), ("F32", "q8_0")])
def test_however_a_prompt_is_cut_its_entries_are_the_same_to_the_last_bit(type: str, kv: str, load: Callable[..., Llama]) -> None:
    llama = load(type, kv=kv)
    logits = []
    for cuts in ((), (1,), (31, 33), (129, 161, 163)):
        cache = llama.new_cache()
        for n in (*cuts, 180):
            llama.prefill(IDS[:n], cache)
        logits.append(llama.engine.step(IDS[180], cache).copy())
    for other in logits[1:]:
        np.testing.assert_array_equal(other, logits[0])


@pytest.mark.parametrize("kv, atol", [("f16", 2e-3), ("q8_0", 1e-2)])  # an integer may round to its neighbour
def test_a_shifted_cache_answers_as_the_cpus(kv: str, atol: float, load: Callable[..., Llama]) -> None:
    def answer(llama: Llama) -> np.ndarray:
        cache = llama.new_cache()
        llama.prefill(IDS[:150], cache)
        cache.remove(20, 64)
        return llama.engine.step(IDS[150], cache).copy()

    ours, cpus = answer(load("F32", kv=kv)), answer(load("F32", "CPU", kv))
    np.testing.assert_allclose(ours, cpus, atol=atol)


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingParams(temperature=0),
        SamplingParams(temperature=1.5, top_k=40, seed=3),
        SamplingParams(top_k=20, repeat_penalty=1.3, repeat_last_n=8, seed=1),
        SamplingParams(
            top_k=20,
            frequency_penalty=0.2,
            repeat_last_n=12,
            dry_multiplier=2,
            dry_allowed_length=0,
            dry_penalty_last_n=12,
            xtc_probability=0.5,
            xtc_threshold=0.01,
            typical_p=0.9,
            dynatemp_range=0.3,
            seed=2,
        ),  # fmt: skip
    ],
    ids=["greedy", "top-k", "penalty", "all of the chain"],
)
def test_ids_drawn_from_the_devices_ranking_are_those_of_all_logits(
    sampling: SamplingParams, load: Callable[..., Llama], monkeypatch: pytest.MonkeyPatch
) -> None:
    llama = load("Q4_0")
    assert llama.model.kernels.most_largest  # type: ignore[attr-defined]
    copies = 0
    logits = llama.engine.logits

    def counted() -> np.ndarray:
        nonlocal copies
        copies += 1
        return logits()

    monkeypatch.setattr(llama.engine, "logits", counted)
    ranked = list(llama.generate(IDS[:40], 12, sampling, stop_ids=frozenset()))
    assert copies == 0  # a token costs one small copy
    monkeypatch.setattr(llama.engine, "largest", lambda: None)
    assert list(llama.generate(IDS[:40], 12, sampling, stop_ids=frozenset())) == ranked
    assert copies == 12


@pytest.mark.parametrize(
    "sampling", [SamplingParams(top_k=70), SamplingParams(top_k=40, repeat_penalty=1.3, repeat_last_n=30), SamplingParams(top_k=0)]
)
def test_where_the_ranking_is_too_short_all_logits_are_read(
    sampling: SamplingParams, load: Callable[..., Llama], monkeypatch: pytest.MonkeyPatch
) -> None:
    llama, reads = load("Q4_0"), []
    logits = llama.engine.logits
    monkeypatch.setattr(llama.engine, "logits", lambda: reads.append(1) or logits())
    list(llama.generate(IDS[:40], 4, sampling, stop_ids=frozenset()))
    assert len(reads) == 4
