"""What answers of another server's model came to, added up: for a session, or since a server's start."""

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from townhall.via.answering import SentFigures


@dataclass
class ModelCost:
    """Of one model at one place. `priced` of the `answers` had a price; tokens are the server's count where it gave one, else ours."""

    answers: int = 0
    priced: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    cost: float = 0.0
    whole_cost: float = 0.0
    currency: str = ""


class CostTotal:
    """Any thread may add."""

    def __init__(self) -> None:
        self._of: dict[tuple[str, str, str], ModelCost] = {}
        self._lock = threading.Lock()

    def add(self, figures: SentFigures) -> float | None:
        """The total in that currency with this answer; None where it has no price."""
        with self._lock:
            one = self._of.setdefault((figures.model, figures.host, figures.currency), ModelCost(currency=figures.currency))
            one.answers += 1
            one.prompt_tokens += figures.sent_tokens if figures.server_tokens is None else figures.server_tokens
            one.answer_tokens += figures.tokens or 0
            if figures.cost is None:
                return None
            one.priced += 1
            one.cost += figures.cost
            one.whole_cost += figures.cost if figures.whole_cost is None else figures.whole_cost
            return sum(other.cost for (_, _, currency), other in self._of.items() if currency == figures.currency)

    def describe(self) -> str:
        """A line for each model."""
        with self._lock:
            return "\n".join(_line(model, host, one) for (model, host, _), one in self._of.items())


def _line(model: str, host: str, one: ModelCost) -> str:
    answers = f"{one.answers} answer{'s' * (one.answers != 1)} of {model} at {host}"
    counted = f"{one.prompt_tokens} tokens sent, {one.answer_tokens} answered"
    if not one.priced:
        return f"{answers}: {counted}; no price is known: --via-price {model}=PROMPT/ANSWER"
    unit = f" {one.currency}" if one.currency else ""
    instead = f" in place of {one.whole_cost:.6f}{unit}" if one.whole_cost > one.cost else ""
    return f"{answers}: {counted}; cost {one.cost:.6f}{unit}{instead}"


def cost_of(receipts: Iterable[Any], currency: str) -> float:
    """What receipts in JSON values, as logs have them, say that answers cost in a currency."""
    total = 0.0
    for receipt in receipts:
        sent = receipt.get("sent") if isinstance(receipt, dict) else None
        cost = sent.get("cost") if isinstance(sent, dict) else None
        if isinstance(sent, dict) and isinstance(cost, int | float) and not isinstance(cost, bool) and sent.get("currency", "") == currency:
            total += cost
    return total
