"""Servers over doubles, and one over a tiny model."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.reference.tiny import make_tiny_gguf
from tests.townhall.fake import FakeBackend, FakeLlama
from tests.townhall.server.processes import Child
from tests.townhall.server.running import OPTIONS, Opened, Running
from townhall.conversation import default_sampling
from townhall.server.serve_options import Limits


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
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny, random model of 2048 tokens."""
    return make_tiny_gguf(tmp_path_factory.mktemp("served") / "tiny.gguf", context_length=2048)


@pytest.fixture(scope="session")
def tiny_server(tiny_file: Path) -> Iterator[Running]:
    """A server over a real, tiny, random model; it is loaded on the engine's thread, as ever."""

    def load() -> Opened:
        from app.models.llama import Llama

        llama = Llama.load(tiny_file, 1536)
        return Opened(llama, default_sampling(), llama.backend)

    server = Running(load, replace(OPTIONS, model_id="tiny"))
    yield server
    server.stop()


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Callable[..., Child]]:
    """child(*flags): `townhall serve` as a process, in a folder of its own."""
    children: list[Child] = []

    def start(*flags: str) -> Child:
        children.append(Child(tmp_path, *flags))
        return children[-1]

    yield start
    for one in children:
        one.process.kill()
        one.process.wait()


@pytest.fixture
def scripted(child: Callable[..., Child], tmp_path: Path) -> Callable[..., Child]:
    """scripted(script, *flags): the same over a double that says what a script says."""

    def start(script: str, *flags: str) -> Child:
        path = tmp_path / "script.yaml"
        path.write_text(script)
        return child("--model", f"fake:script={path}", *flags)

    return start
