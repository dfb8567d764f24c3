"""The page's process, from flags to shutdown."""

import asyncio
import secrets
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn

from townhall.server.server import LOOPBACK, Server, bind, url
from townhall.server.service import Service
from townhall.web.client import Client, ModelChoice, WebError
from townhall.web.sampling_controls import SamplingControls


class LocalServer:
    """A server in this process, on a loopback port with a key of its own."""

    def __init__(self, make: Callable[[str], Service]):
        self.key = secrets.token_urlsafe(24)
        self._service = make(self.key)
        self._listener = bind("127.0.0.1", 0)
        self.root = url(self._listener).removesuffix("/v1")
        self._failures: list[BaseException] = []
        self._loaded = threading.Event()
        self._server = Server(self._service)

    def start(self) -> None:
        """Come back when the model is loaded; raises what kept it from that."""

        def failed(error: BaseException) -> None:
            self._failures.append(error)
            self._loaded.set()

        self._service.start(self._loaded.set, failed)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._listener]}, name="server", daemon=True)
        self._thread.start()
        while not self._loaded.wait(0.1):  # so that Ctrl-C is heard
            pass
        if self._failures:
            raise self._failures[0]

    def stop(self) -> None:
        """Within a second or so."""
        self._server.should_exit = True
        self._thread.join(2.0)


def fetch_served_models(root: str, key: str | None) -> list[ModelChoice]:
    """The server's models; WebError where no server answers."""

    async def ask() -> list[ModelChoice]:
        client = Client(root, key)
        try:
            return await client.served_models()
        finally:
            await client.close()

    served_models = asyncio.run(ask())
    if not served_models:
        raise WebError(f"the server at {root} has no models; start `townhall serve` with one")
    return served_models


def show(
    root: str,
    key: str | None,
    served_models: list[ModelChoice],
    first: str,
    folder: Path,
    listener: socket.socket,
    local: bool,
    plain: SamplingControls,
    ready: Callable[[], Any],
) -> None:
    """Serve the page until a signal."""
    from townhall.web.chat_store import ChatStore
    from townhall.web.site import application

    chat_store = ChatStore(folder, Client(root, key), served_models)
    host = str(listener.getsockname()[0])
    app = application(chat_store, first, (*LOOPBACK, host) if local else (), plain)
    config = uvicorn.Config(
        app, http="h11", ws="none", loop="asyncio", lifespan="on", log_config=None, access_log=False,
        server_header=False, timeout_graceful_shutdown=1, h11_max_incomplete_event_size=64 << 10,
    )  # fmt: skip
    _Page(config, ready).run(sockets=[listener])


class _Page(uvicorn.Server):
    """Says when it stands; open tabs do not keep it from ending."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], Any]):
        super().__init__(config)
        self._ready = ready

    capture_signals = Server.capture_signals

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()
