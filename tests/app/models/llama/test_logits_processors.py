"""Bent logits, by hand-computed numbers."""

import numpy as np
import pytest

from app.models.llama.logits_processors import LogitsProcessors, SamplerChain, logprobs
from app.models.llama.sampling_params import SamplingParams

GREEDY = SamplingParams(temperature=0)
LOGITS = np.array([1.0, 3.0, 2.0, 0.5], np.float32)


def test_a_bias_is_added_and_the_logits_stay_as_they_were() -> None:
    logits = LOGITS.copy()
    assert SamplerChain(GREEDY, LogitsProcessors({0: 2.5}), 1)(logits, [9]) == 0
    assert SamplerChain(GREEDY, LogitsProcessors({1: -100.0}), 1)(logits, [9]) == 2
    assert (logits == LOGITS).all()


def test_penalties_count_what_was_sampled_and_not_the_prompt() -> None:
    frequency = SamplerChain(GREEDY, LogitsProcessors(frequency_penalty=0.6), 2)
    history = [1, 1]
    for expected in (1, 1, 2, 1):  # 3.0, 2.4, 1.8 < 2.0, 1.8 > 1.4
        token = frequency(LOGITS, history)
        assert token == expected
        history.append(token)
    presence = SamplerChain(GREEDY, LogitsProcessors(presence_penalty=1.5), 1)
    assert [presence(LOGITS, [0]), presence(LOGITS, [0, 1]), presence(LOGITS, [0, 1, 2])] == [1, 2, 1]  # 3.0; 2.0 > 1.5; 1.5 > 0.5, 1.0


class Only:
    """Allows one id after another."""

    def __init__(self, *ids: int):
        self.ids, self.taken = list(ids), []

    def allowed(self) -> np.ndarray:
        allowed = np.zeros(3, bool)
        allowed[self.ids[len(self.taken)]] = True
        return allowed

    def take(self, token: int) -> None:
        self.taken.append(token)


def test_a_grammar_decides_what_may_come_and_is_told_what_came() -> None:
    grammar = Only(2, 0)
    sampler = SamplerChain(SamplingParams(temperature=1.0, seed=1), LogitsProcessors(), 1, grammar)
    assert [sampler(LOGITS, [9]), sampler(LOGITS, [9, 2])] == [2, 0] == grammar.taken


def test_a_grammar_hears_of_ids_that_were_not_drawn() -> None:
    grammar = Only(2, 1, 0)
    sampler = SamplerChain(SamplingParams(temperature=1.0, seed=1), LogitsProcessors(), 1, grammar)
    assert [sampler(LOGITS, [9]), sampler(LOGITS, [9, 2, 1])] == [2, 0] and grammar.taken == [2, 1, 0]


def test_log_probabilities_are_those_of_the_softmax() -> None:
    info = logprobs(LOGITS, 2, 2)
    expected = LOGITS - np.log(np.exp(LOGITS).sum())
    assert info.logprob == pytest.approx(expected[2], abs=1e-6)
    assert [n for n, _ in info.top] == [1, 2] and [p for _, p in info.top] == pytest.approx([expected[1], expected[2]], abs=1e-6)
    masked = np.array([0.0, -np.inf, 0.0], np.float32)
    assert logprobs(masked, 0, 3).top == ((0, pytest.approx(-np.log(2))), (2, pytest.approx(-np.log(2))))
    assert logprobs(LOGITS, 1, 0).top == ()


def test_every_id_drawn_is_told_of_where_that_was_asked_for() -> None:
    sampler = SamplerChain(SamplingParams(temperature=1.0, seed=3), LogitsProcessors(), 1, top=1)
    drawn = [sampler(LOGITS, [9]) for _ in range(5)]
    assert [entry.token for entry in sampler.logprobs] == drawn and sampler.seed == 3
    silent = SamplerChain(SamplingParams(temperature=1.0, seed=3), LogitsProcessors(), 1)
    assert [silent(LOGITS, [9]) for _ in range(5)] == drawn and not silent.logprobs
