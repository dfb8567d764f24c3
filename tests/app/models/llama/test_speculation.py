"""Guesses change no text: the ids of every seed are those of plain decoding, with lookup and with a draft model."""

import time
from pathlib import Path

import numpy as np
import pytest

from app.models.llama import Llama, SamplingParams
from app.models.llama.config import ConfigError
from app.models.llama.speculation import AT_FIRST, MOST_GUESSES, PromptLookup, Speculation, SpeculationCount
from tests.reference.tiny import make_tiny_gguf

NO_STOPS: frozenset[int] = frozenset()
REPEATS = [5, 9, 17, 33, 65, 12] * 4


def load(path: Path, seed: int = 0, **shape: int) -> Llama:
    make_tiny_gguf(path, type="Q4_0", seed=seed, **({"dim": 128, "hidden_dim": 256} | shape))
    return Llama.load(path, max_context=160, device="CPU")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Llama:
    return load(tmp_path_factory.mktemp("speculation") / "tiny.gguf")


@pytest.fixture(scope="module")
def guessing(tmp_path_factory: pytest.TempPathFactory) -> Llama:
    llama = load(tmp_path_factory.mktemp("speculation") / "tiny.gguf")
    llama.share_passes(2, MOST_GUESSES + 1)
    if not llama.most_rows:
        pytest.skip("no such passes here")
    llama.engine.row_cost = lambda rows: 1.0  # type: ignore[method-assign]  # guesses are always worth it
    return llama


@pytest.mark.parametrize("drafter", ["lookup", "same", pytest.param("other", marks=pytest.mark.slow)])
def test_ids_are_those_of_plain_decoding(drafter: str, plain: Llama, guessing: Llama, tmp_path: Path) -> None:
    if drafter == "lookup":
        guessing.speculate(PromptLookup)
    else:  # a model that always knows, and one that hardly ever does
        guessing.draft_with(plain if drafter == "same" else load(tmp_path / "draft.gguf", seed=5, dim=64, hidden_dim=64))
    before = guessing.speculated.accepted
    for seed in range(12):
        sampling = SamplingParams(temperature=(0.0, 0.7, 1.3)[seed % 3], seed=seed, repeat_penalty=(1.0, 1.2)[seed % 2], top_k=20)
        prompt = REPEATS[seed:] if seed % 4 else [seed + 3]
        expected = list(plain.generate(prompt, 40, sampling, stop_ids=NO_STOPS))
        generation = guessing.generate(prompt, 40, sampling, stop_ids=NO_STOPS)
        assert list(generation) == expected
        assert generation._cache.tokens == [*prompt, *expected][:-1]
    if drafter != "other":
        assert guessing.speculated.accepted > before


def test_a_pass_with_guesses_counts_once(guessing: Llama) -> None:
    """The seconds that a generation says it took are parts of those that went by."""
    guessing.speculate(PromptLookup)
    before, started = guessing.speculated.passes, time.perf_counter()
    generation = guessing.generate(REPEATS, 100, SamplingParams(temperature=0), stop_ids=NO_STOPS)
    assert len(list(generation)) == 100
    assert generation.prefill_seconds + generation.decode_seconds <= time.perf_counter() - started
    assert guessing.speculated.passes > before


@pytest.mark.slow
def test_ids_are_those_of_plain_decoding_for_many_seeds(plain: Llama, guessing: Llama) -> None:
    guessing.speculate(PromptLookup)
    for seed in range(500):
        sampling = SamplingParams(temperature=0.8 + 0.001 * seed, seed=seed)
        expected = list(plain.generate(REPEATS, 12, sampling, stop_ids=NO_STOPS))
        assert list(guessing.generate(REPEATS, 12, sampling, stop_ids=NO_STOPS)) == expected


@pytest.mark.slow
def test_a_guessed_position_has_the_models_distribution(plain: Llama, guessing: Llama) -> None:
    """Chi-square of the second token, where the first is one that a draft model knows to come."""
    guessing.draft_with(plain)
    sampling = SamplingParams(temperature=1.0, top_k=4)
    prompt, draws = [3, 4, 5], 600
    counts: dict[tuple[int, int], int] = {}
    for seed in range(draws):
        first, second = guessing.generate(prompt, 2, SamplingParams(temperature=1.0, top_k=4, seed=seed), stop_ids=NO_STOPS)
        counts[first, second] = counts.get((first, second), 0) + 1

    def chances(ids: list[int]) -> dict[int, float]:
        logits = plain.logits(ids)[-1].astype(np.float64)
        best = np.argsort(-logits)[: sampling.top_k]
        weights = np.exp(logits[best] - logits[best[0]])
        return dict(zip(best.tolist(), (weights / weights.sum()).tolist(), strict=True))

    expected = {(a, b): p * q for a, p in chances(prompt).items() for b, q in chances([*prompt, a]).items()}
    assert counts.keys() <= expected.keys()
    chi = sum((counts.get(pair, 0) - draws * p) ** 2 / (draws * p) for pair, p in expected.items())
    assert chi < 37.7  # 15 degrees of freedom: exceeded once in a thousand


def test_lookup_guesses_what_followed_the_longest_stretch() -> None:
    lookup = PromptLookup()
    assert lookup.guess([1, 2, 3], 4) == ([], 0)
    assert lookup.guess([1, 2, 3, 7, 1, 2, 3], 2) == ([7, 1], 3)
    assert lookup.guess([1, 2, 3, 7, 1, 2, 3, 8, 2, 3], 9) == ([8, 2, 3], 2)  # the newest time that it stood
    assert lookup.guess([1, 2, 3, 7, 1, 2, 3, 8, 2, 3, 7, 1], 3) == ([2, 3, 8], 4)


def test_guesses_are_as_long_as_they_pay() -> None:
    class Always:
        def guess(self, history: list[int], most: int) -> tuple[list[int], int]:
            return [1] * most, 0

    def length(chance: float, cost: float) -> int:
        speculation = Speculation(Always(), lambda rows: 1 + cost * (rows - 1), SpeculationCount())  # type: ignore[arg-type]
        speculation._chances[0] = chance
        return len(speculation.guess([1, 2], 7))

    assert length(1.0, 0.2) == 7 and length(0.9, 0.05) > length(0.6, 0.2) > 0
    assert length(0.1, 0.2) == 0 and length(0.99, 1.0) == 0


def test_what_never_comes_true_is_soon_left_off_and_tried_again_later() -> None:
    speculation = Speculation(PromptLookup(), lambda rows: 1 + 0.2 * (rows - 1), SpeculationCount())
    history, guessed = [1, 2, 3, 4], 0
    for _ in range(3000):
        history += [1, 2, 3, 4]
        if speculation.guess(history, 7):
            guessed += 1
            speculation.began(1)
            speculation.outcome(False)
    assert 5 < guessed < 300 and speculation._chances[4] < AT_FIRST[4]


def test_a_draft_of_another_vocabulary_is_refused(guessing: Llama, tmp_path: Path) -> None:
    other = load(tmp_path / "other.gguf", vocab_size=500)
    with pytest.raises(ConfigError, match="same vocabulary"):
        guessing.draft_with(other)
