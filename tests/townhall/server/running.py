"""A real uvicorn on loopback, in a thread of the test's own process, and the plainest of clients."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn.server

from townhall.server.serve_options import ServeOptions
from townhall.server.server import Server, bind, url
from townhall.server.service import Service


class _Brisk:
    """asyncio for uvicorn, which looks ten times a second whether it is to end, and then waits as long: 0.2 s a test, of hundreds."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    @staticmethod
    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds / 10)


setattr(uvicorn.server, "asyncio", _Brisk())  # noqa: B010
# for every plain httpx.get(…) of the suite, whose 5 s are not enough on a machine that others keep busy
for _name in ("connect", "read", "write", "pool"):
    setattr(httpx._config.DEFAULT_TIMEOUT_CONFIG, _name, 60.0)


@dataclass
class Opened:
    """As `townhall.cli.model_loading` opens a model."""

    llama: Any
    sampling: Any
    backend: Any


class Running:
    """A server that answers, until `stop`."""

    def __init__(
        self,
        load: Callable[[], Any],
        options: ServeOptions,
        wait: bool = True,
        note: Callable[[str], object] = lambda said: None,
        prepare: Callable[[Service], object] = lambda service: None,
    ):
        """`prepare` gets the service before it starts."""
        self.service = Service(options, load, note=note)
        prepare(self.service)
        listener = bind("127.0.0.1", 0)
        self.url = url(listener)
        self.root = self.url.removesuffix("/v1")
        self.address = listener.getsockname()
        self._failures: list[BaseException] = []
        loaded = threading.Event()
        self.server = Server(self.service)
        self.service.start(loaded.set, lambda error: (self._failures.append(error), loaded.set()))
        self._thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listener]}, daemon=True)
        self._thread.start()
        if not wait:
            return
        assert loaded.wait(240)  # every kernel may have to be compiled
        if self._failures:
            raise self._failures[0]
        self.wait(lambda: self.server.started and self.service.ready)

    def wait(self, condition: Callable[[], Any], seconds: float = 60.0) -> None:
        """Until it holds; the engine's thread is not ours to ask."""
        ends = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < ends, "that did not come about"
            time.sleep(0.005)

    def at_once(self, requests: Sequence[Callable[[], Any]]) -> list[Any]:
        """What these requests return, of which none is computed before all wait in this order: who shares a pass is not decided by time."""
        scheduler, answers = self.service.scheduler, list[Future[Any]]()
        with ThreadPoolExecutor(len(requests)) as pool:
            with scheduler.turns:
                for request in requests:
                    before = scheduler.waiting
                    answers.append(pool.submit(request))
                    self.wait(lambda before=before: scheduler.waiting > before)
            return [answer.result() for answer in answers]

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        self.server.should_exit = True
        self._thread.join(60)
        assert not self._thread.is_alive()


OPTIONS = ServeOptions(model_id="double", personas=("stacy", "gary"), slots=4, grace=2.0)


def ask(server: Running, text: str = "Hello", model: str = "stacy", **fields: Any) -> httpx.Response:
    """POST one question, as plainly as can be."""
    body = {"model": model, "messages": [{"role": "user", "content": text}], **fields}
    return httpx.post(f"{server.url}/chat/completions", json=body, timeout=60)
