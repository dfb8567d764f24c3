"""A service over a double, for bots."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.townhall.fake import FakeBackend, FakeLlama
from tests.townhall.server.running import OPTIONS, Opened
from townhall.conversation import default_sampling
from townhall.server.serve_options import Limits
from townhall.server.service import Service

NO_LIMIT = 1e12  # seconds: where a simulated clock and the machine's own are compared, nothing may come of it


@pytest.fixture
def service() -> Iterator[Callable[..., Service]]:
    """service(llama): ready to answer, ended at the test's end."""
    running: list[Service] = []

    def start(llama: Any = None, **options: Any) -> Service:
        llama, loaded = llama or FakeLlama(), threading.Event()
        settings = replace(OPTIONS, limits=Limits(request=NO_LIMIT), **options)
        running.append(Service(settings, lambda: Opened(llama, default_sampling(), FakeBackend())))
        running[-1].start(loaded.set, lambda error: loaded.set())
        assert loaded.wait(60)
        while not running[-1].ready:
            threading.Event().wait(0.001)
        return running[-1]

    yield start
    for one in running:
        one.drain()
        one.close()
