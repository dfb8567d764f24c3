"""Earlier replies are held back where the next one would go on as they did: against the definition, one place of a text at a time."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from app.models.llama.reply_repetition import LEAD, MOST, START, EarlierReplies, ReplyRepetition
from app.models.llama.sampler import Sampler, SamplingParams

# ids of words, of the rest of a word, a digit, a sign, a fence, a word in Chinese, one at a line's start
SPELLED = [b" a", b" b", b" c", b" d", b" e", b"ing", b" 7", b".", b"```", "\u660e".encode(), b"The", b"\n"]
WORDS = {0, 1, 2, 3, 4, 9}


def spelling(n: int) -> bytes:
    return SPELLED[n]


def held_back(replies: Sequence[Sequence[int]], own: Sequence[int], size: int, penalty: float = 1.0) -> dict[int, float]:
    """The definition: every place of every earlier reply, and of this one, after which as many ids are equal as can be."""
    if sum(SPELLED[n].count(b"```") for n in own) % 2:
        return {}
    said = [*[START] * LEAD, *own]
    found: dict[int, float] = {}
    for text in [*[[*[START] * LEAD, *reply] for reply in replies], said]:
        for place in range(LEAD, len(text)):
            equal = 0
            while equal < min(place, len(said)) and text[place - 1 - equal] == said[-1 - equal]:
                equal += 1
            begins = text[place] in WORDS or (text[place] in (5, 10) and said[-1] in (START, 11))
            if equal >= size and begins and not (text is said and place == len(said)):
                found[text[place]] = max(found.get(text[place], 0.0), penalty * min(MOST, equal - size + 1))
    return found


def test_an_example_by_hand() -> None:
    earlier = EarlierReplies(2, ((0, 1, 2, 3, 4),), spelling)
    prompt = [0, 1, 2]  # the last id of which is the reply's first
    repetition = ReplyRepetition(earlier, 2.0, 3)
    assert repetition.penalties(prompt) == {}  # "c" begins no reply
    assert ReplyRepetition(earlier, 2.0, 3).penalties([9, 9, 0]) == {1: 2.0}  # the beginning counts as two ids
    assert ReplyRepetition(earlier, 2.0, 3).penalties([9, 9, 0, 1]) == {2: 4.0}
    assert ReplyRepetition(earlier, 2.0, 3).penalties([9, 9, 4, 1, 2, 3]) == {4: 2.0}
    assert ReplyRepetition(earlier, 2.0, 3).penalties([9, 9, 4, 2, 3]) == {}
    assert ReplyRepetition(EarlierReplies(0, (), spelling), 1.0, 2).penalties([0, 1, 2, 0, 1]) == {2: 1.0}  # a reply repeats itself
    assert ReplyRepetition(EarlierReplies(0, (), spelling), 1.0, 2).penalties([8, 0, 1, 2, 0, 1]) == {}  # not in a block of code


@pytest.mark.parametrize("steps", [1, 3])
def test_what_is_held_back_is_what_the_definition_says(steps: int) -> None:
    random = np.random.default_rng(steps)
    some = 0
    for _ in range(40):
        replies = [random.choice(5, int(random.integers(0, 20))).tolist() for _ in range(int(random.integers(0, 4)))]
        replies += [random.choice(len(SPELLED), 12).tolist()]
        prompt, size = random.choice(5, 4).tolist(), int(random.integers(1, 6))
        ids, own = list(prompt), list[int]()
        repetition = ReplyRepetition(EarlierReplies(len(prompt), tuple(map(tuple, replies)), spelling), 0.5, size)
        for _ in range(40):
            expected = held_back(replies, own, size, 0.5)
            assert repetition.penalties(ids) == expected, (replies, own, size)
            some += len(expected)
            source = replies[int(random.integers(len(replies)))] or own or [0]
            at = int(random.integers(len(source)))
            more = source[at : at + 4][:steps] if random.random() < 0.8 else random.choice(len(SPELLED), steps).tolist()
            own, ids = [*own, *more], [*ids, *more]
    assert some > 300


def test_the_end_of_a_word_a_number_and_a_sign_are_never_held_back() -> None:
    for n in (5, 6, 7, 8, 10):
        earlier = EarlierReplies(0, ((0, 1, 2, n),), spelling)
        assert ReplyRepetition(earlier, 1.0, 3).penalties([0, 1, 2]) == {}


def test_only_the_newest_replies_are_looked_at() -> None:
    replies = ((0, 1, 2), *[(3, 4) * 100] * 41)
    assert ReplyRepetition(EarlierReplies(0, replies, spelling), 1.0, 3).penalties([0, 1]) == {}
    assert ReplyRepetition(EarlierReplies(0, replies[:30], spelling), 1.0, 3).penalties([0, 1]) == {2: 2.0}


def test_a_sampler_draws_by_it_from_all_logits_and_from_few() -> None:
    earlier = EarlierReplies(1, ((0, 1, 2, 3), (0, 1, 2, 4)), spelling)
    settings: dict[str, Any] = {"temperature": 0, "reply_ngram_penalty": 4.0, "reply_ngram_size": 5}
    logits = np.linspace(1, 2, len(SPELLED)).astype(np.float32)
    logits[[3, 4]] = 5.0, 4.5
    ids = [7, 0, 1, 2]
    for sampling, drawn in (
        (SamplingParams(**settings, earlier=earlier), 11),
        (SamplingParams(**settings), 3),
        (SamplingParams(**settings | {"reply_ngram_penalty": 0.0}, earlier=earlier), 3),
        (SamplingParams(**settings | {"reply_ngram_size": 6}, earlier=earlier), 3),
    ):
        sampler = Sampler(sampling)
        assert sampler(logits, ids) == drawn
        few = np.argsort(-logits)[: sampler.enough(ids)]
        assert Sampler(sampling).draw_from(few.tolist(), logits[few].tolist(), ids) == drawn


def test_what_was_said_is_no_setting() -> None:
    sampling = SamplingParams(reply_ngram_penalty=2.0, seed=1)
    known = SamplingParams(reply_ngram_penalty=2.0, seed=1, earlier=EarlierReplies(0, (), spelling))
    assert known == sampling and known.noted() == sampling.noted() and "earlier" not in known.noted()
    assert SamplingParams.from_note(known.noted()) == sampling
    assert SamplingParams.from_note({"temperature": 0.3}).reply_ngram_penalty == 0  # of a log written before
