"""The server process, from flags to shutdown."""

import asyncio
import contextlib
import gc
import ipaddress
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

from ext.tinygrad.errors import TownhallError
from townhall.server.api import build
from townhall.server.service import Service

WHILE_LOADING = 0.0005  # seconds that the thread which loads keeps the interpreter: a page of 50 files waits for it at each, 5 ms else
MOST_CONNECTIONS = 512
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class ServeError(TownhallError):
    """A server that cannot be started as the flags say."""


def is_loopback(host: str) -> bool:
    """Is that address reachable from this machine only?"""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; ServeError where the address is taken or not ours."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ServeError(f"--host {host} is no address of this machine: {error.strerror or error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise ServeError(f"--host {host} --port {port} cannot be listened on: {error.strerror or error}; pass another --port") from error
    return listener


def url(listener: socket.socket) -> str:
    """Where clients find the API."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"


class Server(uvicorn.Server):
    """Drains at its end: takes no more, lets answers finish, and ends with an error what would take longer than `grace`."""

    def __init__(self, service: Service):
        options = service.options
        super().__init__(
            uvicorn.Config(
                build(service),
                http="h11",
                ws="none",
                loop="asyncio",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                limit_concurrency=MOST_CONNECTIONS,
                timeout_graceful_shutdown=max(1, round(options.grace)),
                h11_max_incomplete_event_size=options.limits.header,
            )
        )
        self._service = service

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._service.pool:
            self._service.pool.begin()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.drain()
        for end in self._service.at_end:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(end(), self._service.options.grace)
        await super().shutdown(sockets)
        self._service.close()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM end the server as they should, so they are not raised again afterwards as uvicorn would."""
        if threading.current_thread() is not threading.main_thread():  # signals come to that one only
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def run(service: Service, listener: socket.socket, ready: Callable[[], Any] = lambda: None) -> None:
    """Serve until a signal; raises what kept the model from being loaded."""
    server = Server(service)
    failures: list[BaseException] = []

    def failed(error: BaseException) -> None:
        failures.append(error)
        server.should_exit = True

    interval = sys.getswitchinterval()

    def loaded() -> None:
        sys.setswitchinterval(interval)
        ready()

    sys.setswitchinterval(WHILE_LOADING)
    gc.freeze()  # modules are never freed: scanning them at each unloading of a model would block all threads for 100 ms
    service.start(loaded, failed)
    server.run(sockets=[listener])
    if failures:
        raise failures[0]
