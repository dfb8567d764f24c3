"""The oracle itself: what must be true of any LLaMA, and of any measure of distance."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from tests.reference import llama_numpy
from tests.reference.compare import DATA, Prompt, Reference, distance, divergences, log_softmax, overall, summarize
from tests.reference.llama_numpy import Sizes, read_gguf
from tests.reference.tiny import make_tiny_gguf, random_weights

SIZES = Sizes(n_layers=2, n_heads=4, n_kv_heads=2, head_dim=16, norm_eps=1e-5, rope_theta=10_000.0)
WEIGHTS = random_weights(2, 64, 4, 2, 16, 128, 96, tied=False, seed=3)
IDS = [5, 90, 17, 17, 0, 63, 2]


def test_a_token_depends_on_none_that_follows() -> None:
    whole = llama_numpy.logits(IDS, SIZES, WEIGHTS)
    assert whole.shape == (7, 96) and whole.dtype == np.float32
    np.testing.assert_allclose(llama_numpy.logits(IDS[:3], SIZES, WEIGHTS), whole[:3], atol=1e-5)
    other = llama_numpy.logits([*IDS[:3], 44, *IDS[4:]], SIZES, WEIGHTS)
    assert np.abs(other[3:] - whole[3:]).min(axis=1).max() > 0


def test_grouped_heads_equal_keys_and_values_repeated() -> None:
    repeated = dict(WEIGHTS)
    for n in range(2):
        for name in (f"blk.{n}.attn_k.weight", f"blk.{n}.attn_v.weight"):
            repeated[name] = WEIGHTS[name].reshape(2, 16, 64).repeat(2, 0).reshape(64, 64)
    ungrouped = dataclasses.replace(SIZES, n_kv_heads=4)
    np.testing.assert_allclose(llama_numpy.logits(IDS, ungrouped, repeated), llama_numpy.logits(IDS, SIZES, WEIGHTS), atol=1e-5)


def test_rope_keeps_lengths_and_sees_only_distances() -> None:
    random = np.random.default_rng(0)
    q, k = random.standard_normal((2, 1, 1, 16)).astype(np.float32)
    cos, sin = llama_numpy.rope_table(60, 16, 10_000.0)

    def at(x: np.ndarray, position: int) -> np.ndarray:
        return llama_numpy.rotate(x, cos[position : position + 1], sin[position : position + 1]).ravel()

    np.testing.assert_allclose(np.linalg.norm(at(q, 50)), np.linalg.norm(q), rtol=1e-5)
    np.testing.assert_allclose(at(q, 7) @ at(k, 2), at(q, 57) @ at(k, 52), rtol=1e-4)
    # the first pair turns by one radian a position: (1, 0) → (cos 1, sin 1)
    one = np.eye(1, 16, dtype=np.float32)[None]
    np.testing.assert_allclose(at(one, 1)[:2], [np.cos(1), np.sin(1)], rtol=1e-6)


def test_the_tiny_file_gives_the_weights_it_was_made_of(tmp_path: Path) -> None:
    sizes, weights = read_gguf(make_tiny_gguf(tmp_path / "tiny.gguf", seed=5))
    assert dataclasses.replace(sizes, norm_eps=1e-5) == SIZES and sizes.norm_eps == pytest.approx(1e-5)
    for name, values in random_weights(2, 64, 4, 2, 16, 128, 352, tied=False, seed=5).items():
        np.testing.assert_array_equal(weights[name], values)


def reference_of(logits: np.ndarray) -> Reference:
    prompt = Prompt(list(range(len(logits))), *summarize(logits))
    return Reference({"p": prompt}, {}, "", {})


def test_logits_are_no_distance_from_themselves_wherever_they_start() -> None:
    logits = np.random.default_rng(1).standard_normal((5, 1000)).astype(np.float32) * 4
    top1, kl = distance(logits + 7, reference_of(logits), "p")
    assert top1 == 1 and kl == pytest.approx(0, abs=1e-7)


def test_kl_by_hand() -> None:
    # the reference gives half to id 0 and the rest evenly to 64 more; then a quarter moves from id 0 to id 1
    share = 0.5 / 64
    reference = np.log(np.array([[0.5] + [share] * 64], np.float32))
    moved = np.log(np.array([[0.25, 0.25 + share] + [share] * 63], np.float32))
    expected = 0.5 * np.log(0.5 / 0.25) + share * np.log(share / (0.25 + share))
    top1, kl = distance(moved, reference_of(reference), "p")
    assert top1 == 0 and kl == pytest.approx(expected, rel=1e-5)


def test_the_bucketed_divergence_is_a_lower_bound_close_to_the_exact_one() -> None:
    random = np.random.default_rng(2)
    logits = (random.standard_normal((40, 3000)) * 3).astype(np.float32)
    noisy = logits + random.standard_normal(logits.shape).astype(np.float32) * 0.1
    p, q = log_softmax(logits), log_softmax(noisy)
    exact = (np.exp(p) * (p - q)).sum(-1)
    found = divergences(noisy, reference_of(logits).prompts["p"])
    assert (found <= exact + 1e-9).all() and found.mean() > 0.3 * exact.mean()


def test_overall_weighs_prompts_by_their_positions() -> None:
    logits = np.random.default_rng(3).standard_normal((4, 200)).astype(np.float32)
    wrong = -logits
    one, three = reference_of(logits[:1]).prompts["p"], reference_of(logits[1:]).prompts["p"]
    reference = Reference({"1": one, "3": three}, {}, "", {})
    top1, kl = overall(lambda ids: logits[:1] if len(ids) == 1 else wrong[1:], reference)
    assert top1 == 0.25
    assert kl == pytest.approx(0.75 * distance(wrong[1:], reference, "3")[1])


def test_the_committed_reference_is_whole_and_small() -> None:
    reference = Reference.load()
    assert [len(prompt.ids) for prompt in reference.prompts.values()] == [1, 31, 32, 33, 200, 900]
    assert DATA.stat().st_size < 600_000
    assert re.fullmatch("[0-9a-f]{64}", reference.model_sha256)
    for prompt in reference.prompts.values():
        assert max(prompt.ids) < 49152 and prompt.top_ids.shape == (len(prompt.ids), 64)
        mass = np.exp(prompt.top_logprobs.astype(np.float64)).sum(-1) + np.exp(prompt.rest.astype(np.float64))
        np.testing.assert_allclose(mass, 1, atol=1e-5)
        assert (np.diff(prompt.top_logprobs, axis=1) <= 0).all()
    theirs = reference.llama_cpp["all"]
    assert 0.9 < theirs["top1"] < 1 and 1e-4 < theirs["kl"] <= theirs["kl_exact"] < 1e-2
