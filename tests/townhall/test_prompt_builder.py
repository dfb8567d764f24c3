"""A prompt that fits: room for the opening, positions that leave a cache, raw texts cut to the window."""

import pytest

from tests.townhall.fake import FakeTokenizer
from townhall.answer_loop import cached_prefix
from townhall.context.strategies import open_strategy
from townhall.context.strategy import WindowPlan
from townhall.errors import ContextError
from townhall.fake.fake_model import FakeCache
from townhall.message import Message, Note
from townhall.persona import Persona
from townhall.prompt import Prompt
from townhall.prompt_builder import build, cut_raw, open_window, settle_cache
from townhall.template import open_format
from townhall.transcript import exchange_of

PERSONA = Persona("Stacy", "Stacy raps.")


@pytest.fixture
def prompt() -> Prompt:
    tokenizer = FakeTokenizer()
    return Prompt(open_format("auto", PERSONA, tokenizer), tokenizer)


def said(prompt: Prompt, n: int, words: int = 10):
    return tuple(exchange_of(prompt, at, "why " * words, "so " * words) for at in range(n))


def turn(prompt: Prompt, at: int, words: int = 1) -> Message:
    return Message(2 * at, "user", "and " * words, prompt.turn_ids("and " * words))


def test_an_opening_takes_room_from_the_window_and_not_from_the_answer(prompt):
    exchanges, question = said(prompt, 4), turn(prompt, 4)
    needed = len(prompt.head_ids) + sum(exchange.tokens for exchange in exchanges) + len(question.ids)
    window = open_window(prompt, 2 * needed, 10)
    exact = type(window)(needed + window.reserve, window.pinned, window.reserve)
    plain = build(prompt, open_strategy("slide"), exact, WindowPlan(exchanges), question)
    opened = build(prompt, open_strategy("slide"), exact, WindowPlan(exchanges), question, prompt.words("well"))
    assert not plain.plan.dropped and opened.plan.dropped
    assert opened.ids[-len(opened.opening) :] == opened.opening and opened.prompt == opened.ids[: -len(opened.opening)]
    assert len(opened.ids) + exact.reserve <= exact.capacity


def test_what_leaves_lies_behind_the_summary_that_the_cache_holds(prompt):
    exchanges, memory = said(prompt, 6), prompt.memory([Note("The user has a dog.", (0,))])
    window = open_window(prompt, len(prompt.head_ids) + len(memory.ids) + sum(e.tokens for e in exchanges) + 12, 10)
    current = WindowPlan(exchanges, (), memory)
    built = build(prompt, open_strategy("slide"), window, current, turn(prompt, 6, words=30))
    dropped = sum(exchange.tokens for exchange in built.plan.dropped)
    assert dropped and built.plan.memory is memory and built.removed is not None
    start, stop = built.removed
    assert start == len(prompt.head_ids) + len(memory.ids) and stop == start + dropped
    # a cache that holds `before` and loses these positions holds the beginning of the new prompt
    left = [*built.before[:start], *built.before[stop:]]
    assert built.ids[: len(left)] == left


@pytest.mark.parametrize("held, removed", [([1, 2, 3, 4], (1, 3)), ([1, 2, 9, 4], None), ([1, 2], None)])
def test_a_cache_loses_positions_only_where_it_holds_them(held, removed):
    class Cache:
        tokens = held

    class Strategy:
        settled = "never"

        def settle(self, cache, removed):
            self.settled = removed

    strategy = Strategy()
    settle_cache(strategy, Cache(), (1, 3), (1, 2, 3, 4))
    assert strategy.settled == removed


def test_the_last_token_of_a_prompt_is_decoded_even_where_all_is_cached():
    assert cached_prefix(FakeCache(9, [1, 2, 3]), [1, 2, 3]) == 2
    assert cached_prefix(FakeCache(9, [1, 2, 9, 4]), [1, 2, 3, 4]) == 2
    assert cached_prefix(FakeCache(9), [1]) == 0


def test_a_raw_prompt_keeps_its_start_and_its_newest_tokens():
    ids = list(range(100, 200))
    assert cut_raw(ids, [7], 100, 20, "slide", most=100) == (ids, 0)
    cut, dropped = cut_raw(ids, [7], 100, 20, "slide")
    assert cut == [7, *ids[-79:]] and dropped == 20 and len(cut) == 80
    with pytest.raises(ContextError, match="100 tokens and the window holds 80 beside the answer, 20 fewer"):
        cut_raw(ids, [7], 100, 20, "stop")
