"""Servers over doubles, and one over a tiny model."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.reference.tiny import make_tiny_gguf
from tests.townhall.fake import FakeBackend, FakeLlama
from tests.townhall.server.running import OPTIONS, Opened, Running
from townhall.server.options import Limits
from townhall.server.planning import default_sampling


@pytest.fixture
def serve() -> Iterator[Callable[..., Running]]:
    """serve(llama, limits={…}, **options): a server over a double, stopped at the test's end."""
    running: list[Running] = []

    def start(llama: Any = None, limits: dict[str, Any] | None = None, **options: Any) -> Running:
        llama = llama or FakeLlama()
        settings = replace(OPTIONS, limits=Limits(**(limits or {})), **options)
        running.append(Running(lambda: Opened(llama, default_sampling(), FakeBackend()), settings))
        return running[-1]

    yield start
    for server in running:
        server.stop()


@pytest.fixture(scope="session")
def tiny_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server over a real, tiny, random model; it is loaded on the engine's thread, as ever."""

    def load() -> Opened:
        from app.models.llama import Llama

        llama = Llama.load(make_tiny_gguf(tmp_path_factory.mktemp("served") / "tiny.gguf", context_length=2048), 1536)
        return Opened(llama, default_sampling(), llama.backend)

    server = Running(load, replace(OPTIONS, model_id="tiny"))
    yield server
    server.stop()
