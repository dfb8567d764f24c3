"""bench.server_soak: that it notices what it looks for, and a short run over two models for which there is no room together."""

import asyncio
import random
from collections import Counter

import httpx
import pytest

from bench.served import townhall
from bench.server_soak import INTENDED, STOLEN, Soak, SoakRequest, report, second_model, secret_of
from tests.reference.tiny import make_tiny_gguf

HEALTHY = [SoakRequest(1.0, 0.01, 0.0)]


def test_a_soak_without_faults_holds_every_promise():
    assert report(Counter({"answered": 5, "nonsense: 400": 2}), HEALTHY, [0.1], [100, 110, 130, 110] * 5)


@pytest.mark.parametrize(
    "seen, asked, memory",
    [
        ({"chat: 500": 1}, HEALTHY, [100] * 5),
        ({"broke off: internal_error": 1}, HEALTHY, [100] * 5),
        ({STOLEN: 1}, HEALTHY, [100] * 5),
        ({"answered": 1}, HEALTHY, [100, 100, 100, 110, 120, 120]),
        ({"answered": 1}, HEALTHY, [100] * 20 + [100] * 17 + [110] * 3),
        ({"answered": 1}, [SoakRequest(1.0, 0.2, 0.0)], [100] * 5),
    ],
)
def test_each_broken_promise_is_noticed(seen, asked, memory):
    assert not report(Counter(seen), asked, [0.1], memory)


@pytest.mark.slow
def test_a_secret_in_a_reply_is_found():
    with townhall("fake:echo") as served:
        soaked = Soak(served, 2, lambda soak: True)

        async def talk(others: list[str]) -> None:
            async with httpx.AsyncClient(timeout=60) as client:
                for number in range(8):
                    await soaked.visit(client, random.Random(number), [], secret_of(0), others)

        asyncio.run(talk([secret_of(1)]))
        assert soaked.seen["said its own secret"] and not soaked.seen[STOLEN]
        asyncio.run(talk([secret_of(0)]))
        assert soaked.seen[STOLEN]


@pytest.mark.slow
def test_sixteen_clients_and_two_models_without_room_for_both(tmp_path):
    model = make_tiny_gguf(tmp_path / "tiny.gguf", context_length=1024)
    (tmp_path / "models").mkdir()
    flags, models = second_model(model, tmp_path / "models")
    with townhall(model, [*flags, "--persona", "stacy"]) as served:
        soaked = Soak(served, 16, lambda soak: soak.visits >= 160, models)
        asyncio.run(soaked.run())
        seen = +soaked.seen
        assert seen["answered"] >= 40 and seen["left in mid-stream"] and seen["left before the first text, or soon after"], seen
        assert not [what for what in seen if ": " in what and what.rpartition(": ")[2] not in INTENDED], seen
        metrics = httpx.get(served.url.replace("/v1", "/metrics")).text
        unloads = next(line for line in metrics.splitlines() if line.startswith("townhall_model_unloads_total "))
        assert float(unloads.split()[-1]) >= 2
