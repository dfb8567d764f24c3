"""Many at once over a tiny, real model: passes are shared, and no text depends on who else is served."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from app.models.llama import Llama
from app.models.llama.speculation import MOST_GUESSES, PromptLookup
from tests.townhall.server.running import OPTIONS, Opened, Running, ask
from townhall.conversation import default_sampling

pytestmark = pytest.mark.slow

REQUESTS: list[dict[str, Any]] = [
    {"text": "Hello there", "seed": 1, "temperature": 1.0, "max_tokens": 40},
    {"text": "What is the name of the sun? " * 12, "seed": 2, "temperature": 0.7, "max_tokens": 30},
    {"text": "Hi", "seed": 3, "temperature": 1.2, "max_tokens": 60, "n": 2},
    {"text": "Count", "seed": 4, "temperature": 1.0, "max_tokens": 35, "logprobs": True, "top_logprobs": 2},
    {"text": "Why?", "seed": 5, "temperature": 0.0, "max_tokens": 50, "repeat_penalty": 1.3},
    {"text": "A JSON object", "seed": 6, "temperature": 1.0, "max_tokens": 40, "response_format": {"type": "json_object"}},
    {"text": "Last", "seed": 7, "temperature": 1.0, "max_tokens": 25, "frequency_penalty": 0.5, "stop": ["e"]},
]


class Counted:
    """How many conversations each pass was shared by; `loaded` is the model."""

    def __init__(self, llama: Llama):
        self.llama = llama
        self.passes: list[int] = []
        compute = llama.compute_ahead

        def counted(wanted: Any) -> None:
            self.passes.append(len(wanted))
            compute(wanted)

        llama.compute_ahead = counted  # type: ignore[method-assign]


@pytest.fixture
def serve_tiny(tiny_file: Path) -> Iterator[Callable[..., tuple[Running, Counted]]]:
    running = list[Running]()

    def start(slots: int, speculate: bool = False) -> tuple[Running, Counted]:
        llama = Llama.load(tiny_file, 1024, device="CPU")
        if speculate:
            llama.speculate(PromptLookup)
        counted = Counted(llama)
        options = replace(OPTIONS, model_id="tiny", slots=slots, speculate=speculate)
        running.append(Running(lambda: Opened(llama, default_sampling(), llama.backend), options))
        if slots > 1 and not llama.most_rows:
            pytest.skip("no such passes here")
        return running[-1], counted

    yield start
    for server in running:
        server.stop()


def choices(server: Running, request: dict[str, Any]) -> Any:
    response = ask(server, model="tiny", **request)
    assert response.status_code == 200, response.text
    return response.json()["choices"]


def test_a_text_does_not_depend_on_who_else_is_served(serve_tiny: Callable[..., tuple[Running, Counted]]) -> None:
    alone, counted_alone = serve_tiny(1)
    expected = [choices(alone, request) for request in REQUESTS]
    assert not counted_alone.passes
    server, counted = serve_tiny(4)
    assert server.at_once([partial(choices, server, request) for request in REQUESTS]) == expected
    assert max(counted.passes) > 2 and len(counted.passes) > 20


def test_a_new_slot_is_made_ready_between_the_others_tokens(serve_tiny: Callable[..., tuple[Running, Counted]]) -> None:
    server, counted = serve_tiny(4)
    llama, order, second = counted.llama, list[str](), threading.Event()
    expected = choices(server, REQUESTS[0])
    make, advance, submit, parts = llama.make_ready, llama.engine.advance, server.service.scheduler.submit, 5
    submitted = 0

    def submitting(job: Any) -> None:
        nonlocal submitted
        submit(job)
        submitted += 1
        if submitted == 2:
            second.set()

    def in_parts(cache: Any, tokens: int, seconds: float) -> bool:
        nonlocal parts
        if not second.is_set():
            return make(cache, tokens, seconds)
        order.append("part")
        parts -= 1
        return parts < 0 and make(cache, tokens, seconds)

    def counting(token: int, cache: Any) -> None:
        order.append("token")
        if len(order) == 10:
            assert second.wait(60)  # the first one goes on when the second one is there
        advance(token, cache)

    server.service.scheduler.submit = submitting  # type: ignore[method-assign]
    llama.engine.advance, llama.make_ready = counting, in_parts  # type: ignore[method-assign]
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(choices, server, {"text": "Go on", "seed": 1, "temperature": 1.0, "max_tokens": 300, "logit_bias": {"100": 50}})
        server.wait(lambda: len(order) >= 10)
        assert choices(server, REQUESTS[0]) == expected
        assert first.result()[0]["finish_reason"] == "length"
    made = [at for at, what in enumerate(order) if what == "part"]
    assert len(made) >= 6 and all("token" in order[a:b] for a, b in zip(made, made[1:], strict=False))


def test_guesses_are_counted_and_change_no_text(serve_tiny: Callable[..., tuple[Running, Counted]]) -> None:
    """A row is a token that was certain or a guess; certain ones and accepted guesses are the tokens of replies."""
    import httpx

    # a random model repeats nothing by itself
    request = {"text": "Again and again", "seed": 1, "temperature": 0.0, "max_tokens": 200, "logit_bias": {"100": 50, "101": 50}}
    alone, _ = serve_tiny(1)
    expected = choices(alone, request)
    server, _ = serve_tiny(1, speculate=True)
    assert choices(server, request) == expected
    server.wait(lambda: server.service.scheduler.active == 0)
    value = server.service.metrics.registry.get_sample_value
    drafts, guessed, accepted = (
        value(f"townhall_spec_decode_num_{name}_total") or 0 for name in ("drafts", "draft_tokens", "accepted_tokens")
    )
    assert 0 < drafts <= guessed and 0 < accepted <= guessed
    passes, rows = (value(f"townhall_decode_{name}_total") or 0 for name in ("passes", "rows"))
    assert rows == passes + guessed
    # the last pass may have computed guesses that the reply's end left unused
    assert 200 <= passes + accepted <= 200 + MOST_GUESSES
    meter = httpx.get(f"{server.root}/townhall/models/meter").json()
    assert meter["speculation"] == {"draft": guessed, "accepted": accepted}


def test_who_leaves_in_mid_stream_takes_nobody_with_it(serve_tiny: Callable[..., tuple[Running, Counted]]) -> None:
    import httpx

    server, _ = serve_tiny(4)
    expected = choices(server, REQUESTS[0])
    left = threading.Event()

    def leave(seed: int) -> None:
        body = {"model": "tiny", "messages": [{"role": "user", "content": "Go on"}], "stream": True, "seed": seed, "temperature": 1.0}
        with httpx.stream("POST", f"{server.url}/chat/completions", json=body | {"max_tokens": 400}, timeout=60) as response:
            lines = response.iter_lines()
            for _ in range(10):
                next(lines)
        left.set()

    with ThreadPoolExecutor(4) as pool:
        leaving = [pool.submit(leave, seed) for seed in range(3)]
        assert choices(server, REQUESTS[0]) == expected
        for one in leaving:
            one.result()
    server.wait(lambda: server.service.scheduler.active == 0)
    assert choices(server, REQUESTS[0]) == expected
