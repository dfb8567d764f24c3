"""Costs added up, against sums by hand."""

import pytest

from townhall.via.answering import SentFigures
from townhall.via.cost_total import CostTotal, cost_of


def figures(model="big", cost=0.25, currency="USD", **fields):
    return SentFigures("h:1", model, 40, 100, **{"server_tokens": 50, "tokens": 3, "cost": cost, "currency": currency, **fields})


def test_costs_add_up_by_currency_and_are_listed_by_model():
    total = CostTotal()
    assert total.describe() == ""
    assert total.add(figures(whole_cost=0.5)) == 0.25
    assert total.add(figures("small", 0.5)) == 0.75  # another model, the same money
    assert total.add(figures("euro", 2.0, "EUR")) == 2.0
    assert total.add(figures("free", None, "", server_tokens=None)) is None
    assert total.add(figures()) == pytest.approx(1.0)
    lines = total.describe().splitlines()
    assert lines[0] == "2 answers of big at h:1: 100 tokens sent, 6 answered; cost 0.500000 USD in place of 0.750000 USD"
    assert lines[1] == "1 answer of small at h:1: 50 tokens sent, 3 answered; cost 0.500000 USD"
    assert lines[3] == "1 answer of free at h:1: 40 tokens sent, 3 answered; no price is known: --via-price free=PROMPT/ANSWER"


def test_a_figure_says_the_total_where_it_is_another():
    assert "in all" not in figures(total_cost=0.25).describe()
    assert figures(total_cost=0.75).describe().endswith("cost 0.250000 USD, 0.750000 USD in all")


def test_what_a_person_wrote_into_receipts_is_passed_over():
    receipts = [
        {"sent": {"cost": 0.5, "currency": "USD"}},
        {"sent": {"cost": "1", "currency": "USD"}},
        {"sent": 7},
        None,
        {"sent": {"cost": 1}},
    ]
    assert cost_of(receipts, "USD") == 0.5 and cost_of(receipts, "") == 1
