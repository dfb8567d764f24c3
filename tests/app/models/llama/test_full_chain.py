"""The whole chain against its samplers' definitions, over random logits, and what stays as it was while all of it is off."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from app.models.llama.full_chain import FullChain
from app.models.llama.sampler import Sampler, SamplingParams
from app.models.llama.sequence_breakers import SequenceBreakers
from ext.tinygrad import top_k
from tests.app.models.llama.sampler_reference import distribution

ALL: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0, "seed": 1}


class Wheel:
    """Random numbers that are chosen."""

    def __init__(self, at: float):
        self.at = at

    def random(self, dtype: Any = None) -> float:
        return self.at


def chain(sampler: Sampler) -> FullChain:
    assert sampler._chain
    return sampler._chain


def places(shares: Sequence[float]) -> Iterator[tuple[int, float]]:
    """(rank, a number between 0 and 1 at which it is drawn): the middle of each share that float32 tells apart, and near both its ends."""
    total = 0.0
    for rank, share in enumerate(shares):
        if share > 1e-4:
            yield from ((rank, total + share * part) for part in (0.02, 0.5, 0.98))
        total += share


def logits_of(random: np.random.Generator, size: int, kind: str) -> np.ndarray:
    logits = (3 * random.standard_normal(size)).astype(np.float32)
    if kind == "ties":
        logits = np.round(logits)
    elif kind == "peaked":
        logits[random.integers(size)] += 8
    return logits


def said_of(random: np.random.Generator, size: int) -> list[int]:
    """A text that repeats itself."""
    text: list[int] = random.integers(0, size, 4).tolist()
    while len(text) < 60:
        start = int(random.integers(len(text)))
        text += text[start : start + int(random.integers(1, 9))] if random.random() < 0.7 else [int(random.integers(size))]
    return text


def check(sampling: SamplingParams, logits: np.ndarray, said: Sequence[int], breakers: Sequence[Sequence[int]] = ()) -> None:
    """Every id is drawn where its share of the definition lies, from all logits and from the few that are enough."""
    known = SequenceBreakers(frozenset(map(tuple, breakers)))
    sampler = Sampler(sampling, known)
    one = chain(sampler)
    expected = distribution(logits, said, sampling, breakers)
    order = np.argsort(-logits, kind="stable")
    for rank, at in places([share for _, share in expected]):
        one._random, one._chances = Wheel(at), Wheel(0.0)  # type: ignore[assignment]
        one._surprise = 2 * sampling.mirostat_tau
        wanted = expected[rank][0]
        assert one.draw(logits, said) == wanted, (rank, at, expected[:5])
        if (enough := sampler.enough(said)) is not None:
            few = order[:enough]
            assert sampler.draw_from(few.tolist(), logits[few].tolist(), said) == wanted, (rank, at, expected[:5])


SETTINGS: dict[str, dict[str, Any]] = {
    "typical": {"typical_p": (0.05, 0.999)},
    "xtc": {"xtc_probability": 1.0, "xtc_threshold": (0.001, 0.5)},
    "dynamic": {"temperature": (0.1, 2.0), "dynatemp_range": (0.05, 2.0), "dynatemp_exponent": (0.0, 3.0)},
    "penalties": {"repeat_penalty": (1.0, 1.5), "presence_penalty": (0.0, 2.0), "frequency_penalty": (0.01, 1.0)},
    "rewards": {"repeat_penalty": (0.7, 1.0), "presence_penalty": (-2.0, 0.0), "frequency_penalty": (-1.0, -0.01)},
    "dry": {"dry_multiplier": (0.1, 2.0), "dry_base": (1.0, 2.5)},
    "mirostat 1": {"mirostat": 1, "mirostat_tau": (0.2, 5.0), "temperature": (0.3, 2.0)},
    "mirostat 2": {"mirostat": 2, "mirostat_tau": (0.2, 5.0), "temperature": (0.3, 2.0)},
}
EVERYTHING = {name: value for kind in ("typical", "xtc", "dynamic", "penalties", "dry") for name, value in SETTINGS[kind].items()}
SETTINGS["everything"] = EVERYTHING | {"top_p": (0.5, 1.0), "min_p": (0.0, 0.2)}
SETTINGS["everything and top-n-sigma"] = SETTINGS["everything"] | {"top_n_sigma": (0.5, 3.0)}
SETTINGS["greedy"] = EVERYTHING | {"temperature": 0.0}


def chosen(random: np.random.Generator, settings: dict[str, Any]) -> dict[str, Any]:
    drawn = {name: float(random.uniform(*value)) if isinstance(value, tuple) else value for name, value in settings.items()}
    return (
        ALL
        | {
            "top_k": int(random.choice([0, 1, 2, 5, 20])),
            "repeat_last_n": int(random.choice([-1, 0, 1, 8, 64])),
            "dry_allowed_length": int(random.integers(0, 5)),
            "dry_penalty_last_n": int(random.choice([-1, 1, 2, 10, 40])),
        }
        | drawn
    )


@pytest.mark.parametrize("kind", ["spread", "ties", "peaked"])
@pytest.mark.parametrize("name", list(SETTINGS))
def test_each_id_is_drawn_with_the_chance_that_the_definition_gives_it(name: str, kind: str) -> None:
    random = np.random.default_rng([len(name), len(kind)])
    for _ in range(80):
        size = int(random.choice([2, 3, 10, 40, 300]))
        breakers = [random.integers(0, size, int(random.integers(1, 4))).tolist() for _ in range(int(random.integers(0, 3)))]
        check(SamplingParams(**chosen(random, SETTINGS[name])), logits_of(random, size, kind), said_of(random, min(size, 12)), breakers)


@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_aims_at_the_surprise_that_it_is_given(version: int) -> None:
    random = np.random.default_rng(0)
    sampling = SamplingParams(**ALL | {"mirostat": version, "mirostat_tau": 3.0, "mirostat_eta": 0.2})
    sampler, mu = Sampler(sampling), 6.0
    for _ in range(200):
        logits = logits_of(random, 300, "spread")
        expected = dict(distribution(logits, (), sampling, mu=mu))
        token = sampler(logits, ())
        mu -= 0.2 * (-math.log2(expected[token]) - 3.0)
        assert chain(sampler)._surprise == pytest.approx(mu, abs=1e-6)


def test_xtc_leaves_out_as_often_as_it_is_asked_to() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    sampler = Sampler(SamplingParams(**ALL | {"xtc_probability": 0.4, "xtc_threshold": 0.2}))
    counts = np.bincount([sampler(logits, ()) for _ in range(8000)], minlength=4) / 8000
    np.testing.assert_allclose(counts, 0.6 * np.array([0.5, 0.3, 0.15, 0.05]) + 0.4 * np.array([0, 0.6, 0.3, 0.1]), atol=0.02)


@pytest.mark.parametrize("settings", [SETTINGS["everything"], SETTINGS["mirostat 1"], SETTINGS["mirostat 2"]])
def test_a_seed_repeats_what_was_drawn_and_another_does_not(settings: dict[str, Any]) -> None:
    values = chosen(np.random.default_rng(5), settings) | {"top_k": 0, "top_p": 1.0, "min_p": 0.0}

    def run(seed: int) -> list[int]:
        sampler, ids = Sampler(SamplingParams(**values | {"seed": seed, "xtc_probability": 0.5})), [1, 2]
        random = np.random.default_rng(0)
        for _ in range(60):
            ids.append(sampler(logits_of(random, 500, "spread"), ids))
        return ids

    assert run(3) == run(3) != run(4)


@pytest.mark.parametrize("settings", [SETTINGS["everything"], SETTINGS["penalties"], SETTINGS["greedy"]])
def test_the_same_ids_come_from_few_as_from_all_and_without_c(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    values = chosen(np.random.default_rng(6), settings) | {"top_k": 20, "xtc_probability": 0.5, "dry_penalty_last_n": -1}

    def run(from_few: bool) -> list[int]:
        sampler, ids = Sampler(SamplingParams(**values)), [1, 2]
        random = np.random.default_rng(1)
        for _ in range(150):
            logits = logits_of(random, 2000, "ties")
            enough = sampler.enough(ids)
            assert enough
            few = np.argsort(-logits, kind="stable")[:enough].tolist()
            ids.append(sampler.draw_from(few, logits[few].tolist(), ids) if from_few else sampler(logits, ids))
        return ids

    native = run(False)
    assert native == run(True)
    monkeypatch.setattr(top_k, "native", lambda: None)
    assert native == run(False)


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "greedy"])
def test_masked_ids_are_never_drawn_and_damage_still_ends_in_an_id(name: str) -> None:
    sampling = SamplingParams(**chosen(np.random.default_rng(7), SETTINGS[name]) | {"top_k": 0, "dynatemp_exponent": 1.0})
    masked = np.full(50, -np.inf, np.float32)
    masked[[3, 9]] = 1.0
    sampler = Sampler(sampling)
    assert {sampler(masked, [4, 3, 4]) for _ in range(100)} <= {3, 9}
    masked[9] = -np.inf
    assert {sampler(masked, [4, 3, 4]) for _ in range(20)} == {3}
    with np.errstate(all="ignore"):
        for value in (np.nan, np.inf, -np.inf):
            assert 0 <= Sampler(sampling)(np.full(100, value, np.float32), [1]) < 100


def test_penalties_follow_a_text_that_grows() -> None:
    random, said = np.random.default_rng(2), [1, 2, 3]
    sampling = SamplingParams(**ALL | {"temperature": 0, "frequency_penalty": 0.3, "dry_multiplier": 0.5, "repeat_last_n": 20})
    sampler, drawn = Sampler(sampling), set[int]()
    for _ in range(200):
        logits = random.standard_normal(8).astype(np.float32)
        token = sampler(logits, said)
        assert token == Sampler(sampling)(logits, list(said)) == distribution(logits, said, sampling)[0][0]
        said.append(token)
        drawn.add(int(logits.argmax()) == token)
    assert drawn == {True, False}


def test_temperature_zero_is_the_likeliest_under_the_penalties_whatever_else() -> None:
    sampling = SamplingParams(
        **ALL | {"temperature": 0, "xtc_probability": 1, "typical_p": 0.1, "mirostat": 2, "dynatemp_range": 1, "presence_penalty": 0.3}
    )
    logits = np.array([1.0, 2.0, 1.9], np.float32)
    assert [Sampler(sampling)(logits, said) for said in ([0], [1], [1, 2])] == [1, 2, 1]


def test_what_is_off_costs_nothing_and_is_not_there() -> None:
    off = SamplingParams(temperature=0.3, repeat_penalty=1.1, dry_base=2.0, xtc_threshold=0.2, mirostat_tau=3, repeat_last_n=30)
    assert Sampler(off)._chain is None
    assert Sampler(SamplingParams(xtc_probability=1, xtc_threshold=0.51))._chain is None
    assert Sampler(SamplingParams(dry_multiplier=1, dry_penalty_last_n=0))._chain is None
    for on in (
        {"typical_p": 0.9},
        {"dry_multiplier": 0.8},
        {"xtc_probability": 0.1},
        {"mirostat": 1},
        {"dynatemp_range": 0.2},
        {"presence_penalty": 0.1},
        {"frequency_penalty": -0.1},
    ):
        assert Sampler(SamplingParams(**on))._chain is not None  # type: ignore[arg-type]


def hashed_logits(step: int, size: int = 500) -> np.ndarray:
    """From whole numbers alone, so that every version of NumPy makes the same."""
    mixed = (np.arange(1, size + 1, dtype=np.uint64) * np.uint64(2654435761) + np.uint64(step * 40503)) % np.uint64(1 << 20)
    mixed = mixed * mixed % np.uint64(99991)
    return (mixed.astype(np.float32) / np.float32(9999.0)).astype(np.float32)


@pytest.mark.parametrize("with_c", [True, False])
@pytest.mark.parametrize(
    "settings, drawn",
    [
        (
            {"temperature": 0.3, "repeat_penalty": 1.1},
            "364 49 102 289 480 420 337 395 340 345 134 453 50 315 67 164 223 181 306 238 408 387 43 62",
        ),
        ({"temperature": 0.7}, "476 308 176 207 40 361 262 395 134 443 350 157 92 315 225 470 18 227 167 177 124 170 156 288"),
        (
            {"temperature": 0, "repeat_penalty": 1.3},
            "146 488 184 440 363 353 209 395 74 180 23 289 118 284 89 75 149 58 346 275 13 172 24 60",
        ),
        (
            {"temperature": 0.9, "top_k": 0, "top_p": 1.0, "min_p": 0.05},
            "260 104 254 336 106 147 415 241 241 391 127 115 70 102 143 44 319 418 177 71 154 52 76 464",
        ),
        (
            {"temperature": 1.5, "top_n_sigma": 1.0, "repeat_penalty": 0.9, "repeat_last_n": -1},
            "476 308 95 162 450 62 262 308 168 412 32 367 92 62 468 164 414 19 53 213 321 387 24 407",
        ),
    ],
)
def test_a_seed_draws_what_it_drew_before_there_were_these_samplers(
    settings: dict[str, Any], drawn: str, with_c: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not with_c:
        monkeypatch.setattr(top_k, "native", lambda: None)
    sampler, ids = Sampler(SamplingParams(seed=11, **settings)), [1, 2, 3]
    for step in range(24):
        ids.append(sampler(hashed_logits(step), ids))
    assert ids[3:] == [int(n) for n in drawn.split()]
