"""One replica of a model: the server's own application without a socket, called by the front through Ray."""

import asyncio
import json
import os
import platform
from collections.abc import AsyncIterator
from typing import Any

from townhall.swarm.errors import SwarmError
from townhall.swarm.forwarding import AnswerStart, ForwardedRequest, call
from townhall.swarm.swarm_file import SwarmModel

DESCRIPTION = ForwardedRequest("GET", "/v1/models")
METRICS = ForwardedRequest("GET", "/metrics")


def open_model(model: SwarmModel, grace: float) -> Any:
    """The service that the model's flags describe, under its name; TownhallError for what `townhall serve` would refuse."""
    import click

    from townhall.cli.flags import chat_options
    from townhall.cli.serve import SERVING, open_service, serve

    try:
        context = serve.make_context("townhall serve", model.arguments())
    except click.ClickException as error:
        raise SwarmError(f"model {model.name}: {error.format_message().rstrip('.')}") from error
    with context:
        flags = dict(context.params)
        config = flags.pop("config")
        flags.pop("chats")
        given = {name: flags.pop(name) for name in SERVING}
        return open_service(chat_options(context, config, flags), given, model.name, grace=grace)


class ModelReplica:
    """What Ray Serve starts, asks, watches and ends."""

    def __init__(self, model: SwarmModel, grace: float, name: str | None = None):
        """`name` is the replica's own, by default the one that Ray Serve gave it. Raises what keeps the model from being loaded."""
        from townhall.server.api import build

        if name is None:
            from ray import serve

            from townhall.swarm.ray_cluster import keep_replica_local

            keep_replica_local()
            name = serve.get_replica_context().replica_id.unique_id
        self._model, self._name = model, name
        self._service = open_model(model, grace)
        self._app = build(self._service)
        self._failures: list[BaseException] = []
        self._loaded: asyncio.Future[None] | None = None
        self._start()

    def _start(self) -> None:
        import threading

        done = threading.Event()

        def failed(error: BaseException) -> None:
            self._failures.append(error)
            done.set()

        self._service.start(done.set, failed)
        done.wait()
        if self._failures:
            raise self._failures[0]

    async def ask(self, request: ForwardedRequest, hint: Any = None) -> AsyncIterator[AnswerStart | bytes]:
        """The answer's start, then its body; `hint` is for the router."""
        async for piece in call(self._app, request, self._name):
            yield piece

    async def describe(self, hint: Any = None) -> dict[str, Any]:
        """What is served here, by whom, and how it is doing."""
        listed = b"".join([piece async for piece in call(self._app, DESCRIPTION, self._name) if isinstance(piece, bytes)])
        return {
            "replica": self._name,
            "model": self._model.described(),
            "position": self._model.position,
            "served": json.loads(listed).get("data", []),
            "node": platform.node(),
            "pid": os.getpid(),
            "health": self._service.health(),
        }

    async def metrics(self, hint: Any = None) -> str:
        """Prometheus' text."""
        return b"".join([piece async for piece in call(self._app, METRICS, self._name) if isinstance(piece, bytes)]).decode()

    def check_health(self) -> None:
        """Raises where the engine has died: the replica is replaced then."""
        state = self._service.health()["status"]
        if self._failures or state == "loading":
            raise SwarmError(f"model {self._model.name}: the engine does not run; its log says why")

    def __del__(self) -> None:
        # Ray Serve ends a replica when its answers are complete, or their time is over
        if hasattr(self, "_service"):
            self._service.drain()
            self._service.close()
