import json
from itertools import count

import pytest

from townhall.context.strategies import STRATEGIES, open_strategy
from townhall.context.strategy import Usage, Window, WindowPlan
from townhall.errors import ContextError
from townhall.message import Exchange, Message
from townhall.reply import Receipt

WINDOW = Window(capacity=1000, pinned=200, reserve=100)  # a budget of 700


def plan(*sizes):
    """Exchanges of so many tokens each, half of them the question's."""
    ids = count()
    return WindowPlan(
        tuple(
            Exchange(Message(next(ids), "user", "", (0,) * (size // 2)), Message(next(ids), "assistant", "", (0,) * (size - size // 2)))
            for size in sizes
        )
    )


def kept(chosen):
    return [exchange.tokens for exchange in chosen.kept]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("sizes, turn", [((), 700), ((300, 300), 100), ((1,), 699)])
def test_what_fits_stays_whole(strategy, sizes, turn):
    chosen = open_strategy(strategy).choose(WINDOW, plan(*sizes), turn)
    assert kept(chosen) == list(sizes) and not chosen.dropped


@pytest.mark.parametrize(
    "sizes, turn, stays",
    [
        ((100, 100, 100, 100, 100, 100), 101, [100, 100, 100]),  # 250 to be freed, so three go
        ((250, 100, 300), 51, [100, 300]),  # the first alone is a quarter of the window
        ((249, 100, 300), 52, [300]),
        ((100, 400), 250, [400]),  # the newest is spared while it fits
        ((100, 600), 250, []),
        ((650,), 51, []),
    ],
)
def test_slide_drops_the_oldest_exchanges_and_a_quarter_of_the_window(sizes, turn, stays):
    current = plan(*sizes)
    chosen = open_strategy("slide").choose(WINDOW, current, turn)
    assert kept(chosen) == stays
    assert (*chosen.dropped, *chosen.kept) == current.kept


def test_halve_frees_half_of_the_window():
    assert kept(open_strategy("halve").choose(WINDOW, plan(100, 100, 100, 100, 100, 100), 101)) == [100]


def test_slide_pays_rarely():
    strategy, current, overflows = open_strategy("slide"), WindowPlan(()), 0
    for _ in range(1000):
        chosen = strategy.choose(WINDOW, current, 20)
        overflows += bool(chosen.dropped)
        current = WindowPlan((*chosen.kept, *plan(50).kept))
    assert overflows <= 1000 * 50 / 250


def test_stop_refuses_with_how_many_tokens_over_and_what_would_help():
    with pytest.raises(ContextError, match="prompt of 901 tokens, 1 more than fit.*--max-context.*--context slide") as caught:
        open_strategy("stop").choose(WINDOW, plan(600), 101)
    assert (caught.value.needed, caught.value.capacity) == (901, 1000)


def test_an_unknown_strategy_names_those_there_are():
    with pytest.raises(ContextError, match=", ".join(STRATEGIES)):
        open_strategy("silde")


def test_a_receipt_is_json_and_says_only_what_was_dropped():
    receipt = Receipt("slide", 1024, 500, 200, dropped=(0, 1), dropped_tokens=80, recomputed_tokens=280)
    assert json.loads(json.dumps(receipt.to_json()))["dropped"] == [0, 1]
    assert "2 oldest messages (80 tokens)" in receipt.describe() and "280 of them read again" in receipt.describe()
    assert Receipt("slide", 1024, 500, 200).describe() is None


def test_the_bar_shows_the_window():
    bar, legend = Usage(window=100, pinned=25, memory=0, recent=25, reserve=25).describe(width=8).splitlines()
    assert bar == "[##==rr..] 100 tokens"
    assert "persona 25" in legend and "free 25" in legend
