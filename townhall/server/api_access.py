"""What every way into the API does with a request: read its body, put it into a lane, queue it, wait for vectors."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from starlette.requests import ClientDisconnect, Request

from townhall.enrich.enricher import EnrichmentRequest, completed, searching
from townhall.server.errors import APIError
from townhall.server.event_stream import Events, vectors
from townhall.server.guard import read_body
from townhall.server.model_embeddings import Embedded, ids_of
from townhall.server.planned_request import PlannedRequest
from townhall.server.request_planner import Planner
from townhall.server.requests import ChatRequest, Generate, parse
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

    async def planned(self, service: Service, request: Request, asked: ChatRequest) -> PlannedRequest:
        """What is to be made of a chat request; for another server's model its question may be rewritten first (`--enrich always`)."""
        planned = await service.plan(lambda planner: planner.chat(asked))
        last = asked.messages[-1]
        if not planned.elsewhere or service.options.enrich != "always" or last.role != "user" or not last.text.strip():
            return planned
        said = [(message.role, message.text) for message in asked.messages[:-1] if message.role in ("user", "assistant") and message.text]
        resolved = await service.resolve(EnrichmentRequest(last.text, said), request.is_disconnected)

        def again(planner: Planner) -> PlannedRequest:
            """Libraries belong to the planner's thread."""
            search = searching(service.find(planned.model).sources.sources)
            found = completed(EnrichmentRequest(last.text, said, planned.notes, search), resolved)
            if not found.changed:
                return planned
            messages = [*asked.messages[:-1], last.model_copy(update={"content": found.text})]
            rewritten = planner.chat(asked.model_copy(update={"messages": messages}))
            return replace(rewritten, info=rewritten.info | {"enriched": {"own": found.own, "offered": found.text}})

        return await service.plan(again)

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
