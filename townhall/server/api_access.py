"""What every way into the API does with a request: read its body, put it into a lane, queue it, wait for vectors."""

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from starlette.requests import ClientDisconnect, Request

from townhall.server.errors import APIError
from townhall.server.event_stream import Events, vectors
from townhall.server.guard import read_body
from townhall.server.model_embeddings import Embedded, ids_of
from townhall.server.request_planner import PlannedRequest
from townhall.server.requests import Generate, parse
from townhall.server.service import Service
from townhall.server.slots import Lane


class ApiAccess:
    """Base of the classes that have endpoints."""

    def __init__(self, service: Service):
        self.service = service

    async def read(self, request: Request, kind: Any) -> Any:
        """The body as `kind`; APIError for what is none, and 503 while the model is being loaded."""
        self.service.served_models  # noqa: B018  (before anything is read)
        try:
            return parse(kind, await read_body(request, self.service.options.limits))
        except ClientDisconnect:
            raise APIError(400, "the request's body broke off") from None

    def lane(self, request: Request, asked: Generate) -> Lane:
        """By the user agent, or as the request says."""
        agent = request.headers.get("user-agent", "")
        if any(part in agent for part in self.service.options.background_agents):
            return "background"
        return asked.townhall.lane if asked.townhall else "chat"

    def queued(
        self, service: Service, request: Request, asked: Generate, planned: PlannedRequest, arrived: float
    ) -> tuple[Events, partial[None]]:
        """(what comes of it, what ends it), from the service that planned it."""
        events: Events = asyncio.Queue()
        job = service.submit(planned, self.lane(request, asked), events, arrived)
        return events, partial(service.cancel, job)

    async def embed(self, request: Request, model: str | None, inputs: Sequence[str | list[int]], cut: bool = False) -> Embedded:
        """Vectors from a served model, made on the engine's thread; APIError where they cannot be. `cut`: to the window."""
        arrived = time.monotonic()
        with await self.service.hold(model) as service:
            llama = service.llama
            texts = await service.plan(lambda planner: ids_of(llama, inputs, cut))
            events: Events = asyncio.Queue()
            work = service.embed(texts, events, arrived)
            try:
                return await vectors(request, events)
            finally:
                service.cancel(work)
