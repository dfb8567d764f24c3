"""The sampler against numbers worked out by hand."""

from typing import Any

import numpy as np
import pytest

from app.models.llama.sampler import Sampler, SamplingError, SamplingParams, largest
from ext.tinygrad import top_k

# probabilities 0.4 0.3 0.2 0.1 of the ids 2 0 3 1
LOGITS = np.log(np.array([0.3, 0.1, 0.4, 0.2], np.float32))
NEUTRAL: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 1}


def draws(n: int = 4000, recent: list[int] | None = None, **changes: Any) -> np.ndarray:
    """How often each of the four ids came, as shares."""
    sampler = Sampler(SamplingParams(**NEUTRAL | changes))
    counts = np.bincount([sampler(LOGITS, recent or []) for _ in range(n)], minlength=4)
    return counts / n


def test_temperature_zero_is_argmax_whatever_else_is_set() -> None:
    sampler = Sampler(SamplingParams(temperature=0, top_k=3, top_p=0.1, min_p=0.5))
    assert [sampler(LOGITS, [2, 2, 2]) for _ in range(5)] == [2] * 5


def test_temperature_one_draws_by_probability() -> None:
    np.testing.assert_allclose(draws(), [0.3, 0.1, 0.4, 0.2], atol=0.03)


def test_low_temperature_sharpens_and_high_flattens() -> None:
    # at 0.5 probabilities are squared: 9 1 16 4 of 30; at 2 their roots are taken
    np.testing.assert_allclose(draws(temperature=0.5), np.array([9, 1, 16, 4]) / 30, atol=0.03)
    roots = np.sqrt([0.3, 0.1, 0.4, 0.2])
    np.testing.assert_allclose(draws(temperature=2.0), roots / roots.sum(), atol=0.03)


def test_a_tiny_temperature_does_not_overflow() -> None:
    sampler = Sampler(SamplingParams(temperature=1e-30, seed=0))
    with np.errstate(all="raise", under="ignore"):
        assert sampler(np.array([500.0, 1000.0, -1000.0], np.float32), []) == 1


@pytest.mark.parametrize("top_k, kept", [(1, {2}), (2, {2, 0}), (3, {2, 0, 3}), (4, {0, 1, 2, 3}), (100, {0, 1, 2, 3})])
def test_top_k_keeps_the_k_likeliest(top_k: int, kept: set[int]) -> None:
    assert set(np.flatnonzero(draws(500, top_k=top_k))) == kept


@pytest.mark.parametrize("top_p, kept", [(0.01, {2}), (0.39, {2}), (0.41, {2, 0}), (0.69, {2, 0}), (0.71, {2, 0, 3}), (0.95, {0, 1, 2, 3})])
def test_top_p_keeps_the_fewest_that_reach_it(top_p: float, kept: set[int]) -> None:
    assert set(np.flatnonzero(draws(500, top_p=top_p))) == kept


@pytest.mark.parametrize("min_p, kept", [(0.2, {0, 1, 2, 3}), (0.3, {2, 0, 3}), (0.6, {2, 0}), (0.8, {2}), (1.0, {2})])
def test_min_p_is_a_share_of_the_likeliest(min_p: float, kept: set[int]) -> None:
    assert set(np.flatnonzero(draws(500, min_p=min_p))) == kept


def test_top_p_counts_what_top_k_left() -> None:
    # of 0.4 and 0.3 the first alone makes up 0.57
    assert set(np.flatnonzero(draws(500, top_k=2, top_p=0.55))) == {2}
    assert set(np.flatnonzero(draws(500, top_k=0, top_p=0.55))) == {2, 0}


def test_top_p_and_min_p_look_at_probabilities_before_the_temperature() -> None:
    assert set(np.flatnonzero(draws(3000, temperature=10.0, top_p=0.69))) == {2, 0}
    assert set(np.flatnonzero(draws(3000, temperature=10.0, min_p=0.3))) == {2, 0, 3}


@pytest.mark.parametrize("n", [0.5, 1.0, 2.5])
def test_top_n_sigma_keeps_what_is_near_the_best(n: float) -> None:
    logits = np.random.default_rng(0).normal(size=200).astype(np.float32)
    kept = set(np.flatnonzero(logits >= logits.max() - n * logits.std()).tolist())
    sampler = Sampler(SamplingParams(temperature=50.0, top_k=0, top_p=1, top_n_sigma=n, seed=1))
    assert {sampler(logits, ()) for _ in range(3000)} == kept
    assert sampler.enough(()) is None  # the deviation is that of all logits


def test_repeat_penalty_divides_positive_and_multiplies_negative_logits_once() -> None:
    logits = np.array([2.0, 1.5, -1.0, -1.5], np.float32)
    sampler = Sampler(SamplingParams(temperature=0, repeat_penalty=2.0))
    assert sampler(logits, [0]) == 1  # 2.0 → 1.0
    assert sampler(logits, [0, 0, 1]) == 0  # 1.0 and 0.75: 0 counts once
    np.testing.assert_array_equal(logits, np.array([2.0, 1.5, -1.0, -1.5], np.float32))
    assert sampler(np.array([-1.0, -1.5], np.float32), [0]) == 1  # -1.0 → -2.0


@pytest.mark.parametrize("last_n, chosen", [(0, 0), (1, 0), (2, 1), (64, 1), (-1, 1)])
def test_repeat_penalty_looks_back_only_so_far(last_n: int, chosen: int) -> None:
    logits = np.array([2.0, 1.5, -9.0], np.float32)
    assert Sampler(SamplingParams(temperature=0, repeat_penalty=2.0, repeat_last_n=last_n))(logits, [0, 2]) == chosen


def test_the_same_seed_draws_the_same_ids_and_another_does_not() -> None:
    random = np.random.default_rng(0)
    steps = [random.standard_normal(1000).astype(np.float32) for _ in range(30)]

    def run(seed: int | None) -> tuple[list[int], int]:
        sampler = Sampler(SamplingParams(seed=seed))
        return [sampler(logits, []) for logits in steps], sampler.seed

    assert run(7)[0] == run(7)[0] != run(8)[0]
    fresh, seed = run(None)
    assert run(seed)[0] == fresh != run(None)[0]


def test_masked_ids_are_never_drawn() -> None:
    logits = np.full(50, -np.inf, np.float32)
    logits[[3, 9]] = 1.0
    sampler = Sampler(SamplingParams(temperature=5.0, top_k=0, top_p=1.0, seed=0))
    assert {sampler(logits, []) for _ in range(200)} == {3, 9}


@pytest.mark.parametrize("sampling", [SamplingParams(temperature=0), SamplingParams(seed=0), SamplingParams(seed=0, top_k=0, min_p=0.1)])
def test_a_damaged_models_nan_still_ends_in_an_id(sampling: SamplingParams) -> None:
    with np.errstate(all="ignore"):
        assert 0 <= Sampler(sampling)(np.full(100, np.nan, np.float32), [1]) < 100


def test_the_whole_vocabulary_stays_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds, cumsum = set(), np.cumsum

    def watched(values: np.ndarray) -> np.ndarray:
        kinds.add(values.dtype)
        return cumsum(values)

    monkeypatch.setattr(np, "cumsum", watched)
    Sampler(SamplingParams(seed=0, top_k=0, min_p=0.01))(np.linspace(0, 1, 100, dtype=np.float32), [1])
    assert kinds == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    "setting",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"temperature": 10**400},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"min_p": -0.1},
        {"min_p": 1.5},
        {"repeat_penalty": 0.0},
        {"repeat_last_n": -2},
        {"seed": -1},
    ],
)
def test_a_setting_out_of_range_is_named_as_its_flag(setting: dict[str, Any]) -> None:
    flag = next(iter(setting)).replace("_", "-")
    with pytest.raises(SamplingError, match=f"--{flag} .*; pass "):
        SamplingParams(**setting)


@pytest.mark.parametrize("size", [1, 63, 64, 6_401, 49_152])
@pytest.mark.parametrize("k", [1, 5, 40])
@pytest.mark.parametrize("kind", ["spread", "ties", "hidden", "all alike"])
def test_the_largest_are_those_of_a_full_sort(size: int, k: int, kind: str) -> None:
    rng = np.random.default_rng(size * k)
    logits = rng.standard_normal(size).astype(np.float32)
    if kind == "ties":
        logits = np.round(logits)
    elif kind == "hidden":
        logits[rng.random(size) < 0.9] = -np.inf
    elif kind == "all alike":
        logits[:] = 1.5
    ids, scores = largest(logits, k)
    assert len(set(ids.tolist())) == len(ids) == min(k, size)
    np.testing.assert_array_equal(scores, np.sort(logits)[::-1][:k])
    np.testing.assert_array_equal(logits[ids], scores)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"temperature": 0.0, "repeat_penalty": 1.3},
        {"repeat_penalty": 1.1, "temperature": 0.3},
        {"top_k": 5, "top_p": 0.6, "repeat_penalty": 2.0},
        {"min_p": 0.2, "temperature": 2.0},
        {"top_k": 300, "min_p": 0.3},
    ],
)
def test_without_c_the_same_ids_are_drawn(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(3)
    steps = [(3 * random.standard_normal(5000)).astype(np.float32) for _ in range(60)]
    steps[7][42] = 90.0  # one id is left: nothing is drawn for it, on either way

    def run() -> list[int]:
        sampler, ids = Sampler(SamplingParams(**{"seed": 5} | changes)), list[int]()
        for logits in steps:
            ids.append(sampler(logits, [*np.argsort(-logits)[::3][:50].tolist(), *ids]))
        return ids

    native = run()
    monkeypatch.setattr(top_k, "native", lambda: None)
    agree = sum(a == b for a, b in zip(native, run(), strict=True))
    assert agree >= 0.95 * len(steps), f"{agree} of {len(steps)}"  # a draw may fall on the other side of a rounding
