"""Ranking against its definitions, in plain Python."""

import math

import numpy as np
import pytest

from townhall.library.library_index import quoted
from townhall.library.ranking import content_words, fused, nearest, rarity


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_nearest_are_those_of_a_plain_sort(dtype):
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(3000, 16)).astype(dtype)
    question = rng.normal(size=16).astype(np.float32)
    top, cosines = nearest(question, matrix, 50)
    wanted = matrix.astype(np.float32) @ question
    assert np.allclose(cosines, wanted, atol=1e-3) and list(top) == list(np.argsort(-cosines, kind="stable")[:50])
    assert len(nearest(question, matrix[:7], 50)[0]) == 7 and not len(nearest(question, matrix[:0], 50)[0])


def test_fusion_adds_reciprocal_ranks():
    scores = fused([[7, 3, 5], [3, 9]])
    assert scores == pytest.approx({3: 1 / 62 + 1 / 61, 7: 1 / 61, 9: 1 / 62, 5: 1 / 63}) and list(scores) == [3, 7, 9, 5]
    assert fused([[], []]) == {}


def test_rare_words_weigh_more():
    assert rarity(0, 100) > rarity(1, 100) > rarity(50, 100) > rarity(100, 100) > 0
    assert rarity(3, 10) == pytest.approx(math.log(1 + 7.5 / 3.5))


@pytest.mark.parametrize(
    "question, words",
    [
        ("Where does the river Alph run?", ["river", "alph", "run"]),
        ("What's the cat's name?", ["cat's", "name"]),
        ("Who are you?", ["who", "are", "you"]),
        ('"x" OR y* NEAR(z)', ["x", "y", "near", "z"]),
        ("?!", []),
    ],
)
def test_words_that_say_what_a_question_is_about(question, words):
    assert content_words(question) == words


def test_words_are_no_syntax_of_the_search():
    assert quoted(['a"b', "NOT"]) == '"a""b" OR "NOT"'
