"""A real server over a double, and a shelf of chats that asks it."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.townhall.server.running import OPTIONS, Opened, Running
from townhall.fake.fake_model import FakeBackend, FakeModel, ScriptedReply
from townhall.server.request_planner import default_sampling
from townhall.web.chat_store import ChatStore
from townhall.web.client import Client, ModelChoice

STACY = ModelChoice("stacy", "Stacy", "A rapper.", "Yo!")


@pytest.fixture
def run() -> Iterator[Callable[..., Any]]:
    """run(coroutine): on one loop for the whole test, as the page has one for its life."""
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.fixture
def house() -> Iterator[Callable[..., Running]]:
    """house(*lines, max_context=…): a server that says these lines in turn."""
    running: list[Running] = []

    def start(*lines: ScriptedReply | str, max_context: int = 1024, **options: Any) -> Running:
        said = [line if isinstance(line, ScriptedReply) else ScriptedReply(line) for line in lines or ("Fine.",)]
        count = iter(range(1 << 20))
        model = FakeModel(lambda prompt: said[next(count) % len(said)], max_context)
        running.append(Running(lambda: Opened(model, default_sampling(), FakeBackend()), replace(OPTIONS, **options)))
        return running[-1]

    yield start
    for server in running:
        server.stop()


@pytest.fixture
def chat_store(tmp_path: Path) -> Callable[..., ChatStore]:
    """shelf(root): chats in a folder that is not there yet."""

    def make(root: str, key: str | None = None) -> ChatStore:
        return ChatStore(
            tmp_path / "logs", Client(root, key), [STACY, ModelChoice("gary", "Gary"), ModelChoice("double", "double", bare=True)]
        )

    return make
