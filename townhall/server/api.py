"""The endpoints: read, plan, queue, and tell what comes of it."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from townhall.chats.chat_routes import ChatRoutes
from townhall.library.embedder import NAME as EMBEDDER
from townhall.server.api_access import ApiAccess
from townhall.server.character_routes import CharacterRoutes
from townhall.server.control_routes import ControlRoutes
from townhall.server.embeddings import EmbeddingsRequest, embedding_list, embeddings
from townhall.server.endpoints import EndpointGroup
from townhall.server.errors import APIError
from townhall.server.event_stream import EventStream, stream, whole
from townhall.server.guard import Guard, error_response, json_response
from townhall.server.library_routes import LibraryRoutes
from townhall.server.model_routes import ModelRoutes
from townhall.server.ollama_api import OllamaRoutes
from townhall.server.openapi import document
from townhall.server.planned_request import DROPPED, WARNING, PlannedRequest
from townhall.server.request_planner import Planner
from townhall.server.requests import ChatRequest, CompletionRequest, DetokenizeRequest, Generate, TokenizeRequest
from townhall.server.responses import ChatResponseBuilder, ResponseBuilder, TextResponseBuilder
from townhall.server.responses_api import ResponsesRoutes
from townhall.server.served_models import ServedModel
from townhall.server.service import Service
from townhall.web.page_files import PageFiles


def build(service: Service) -> Starlette:
    """The application."""
    responses, ollama = ResponsesRoutes(service), OllamaRoutes(service)
    groups = [kind(service).group() for kind in (ControlRoutes, CharacterRoutes, LibraryRoutes, ModelRoutes, ChatRoutes)]
    groups += [responses.group(), ollama.group()]
    api = API(service, groups)
    versioned = [
        ("/models", api.models, "GET"),
        ("/models/{id:path}", api.model, "GET"),
        ("/chat/completions", api.chat, "POST"),
        ("/completions", api.completions, "POST"),
        ("/embeddings", api.embeddings, "POST"),
        ("/tokenize", api.tokenize, "POST"),
        ("/detokenize", api.detokenize, "POST"),
    ]
    routes = [
        # a base URL is given with and without its version
        *(Route(f"{base}{path}", endpoint, methods=[method]) for base in ("/v1", "") for path, endpoint, method in versioned),
        Route("/responses", responses.respond, methods=["POST"]),
        Route("/health", api.health),
        Route("/metrics", api.metrics),
        Route("/openapi.json", api.openapi),
        *(route for group in groups for route in group.routes),
        *(PageFiles().routes() if service.options.page else ()),
    ]
    middleware = [Middleware(Guard, service=service)]
    if service.options.cors:
        exposed = [DROPPED, WARNING, "Retry-After"]
        origins = list(service.options.cors)
        cors = Middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["*"],
            expose_headers=exposed,
        )
        middleware.insert(0, cors)
    app = Starlette(routes=routes, middleware=middleware, exception_handlers={HTTPException: _http_error})
    app.router.redirect_slashes = False  # a redirect has no JSON, and names http:// where a proxy speaks https
    return app


def _model(served_model: ServedModel, service: Service) -> dict[str, Any]:
    """A model as clients list it; `townhall` says who speaks, for those that show faces, and which model of another server answers."""
    persona = served_model.persona
    who = {"name": served_model.id, "bare": True} if served_model.bare else {"name": persona.name, "bare": False}
    info = {**who, "description": persona.description, "greeting": persona.greeting, "user": persona.user}
    info["greetings"] = [text for text in (persona.greeting, *persona.alternate_greetings) if text]
    info["via"] = service.options.via.place if service.options.via and served_model.elsewhere else None
    return {"id": served_model.id, "object": "model", "created": int(service.started), "owned_by": "townhall", "townhall": info}


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    what = f"{request.method} {request.scope['path']}"
    message = {404: f"there is no {what}", 405: f"{what} is not possible"}.get(error.status_code, str(error.detail))
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code)
    response = error_response(APIError(error.status_code, message, code=code), request.scope["path"])
    response.headers.update(error.headers or {})
    return response


class API(ApiAccess):
    """One method for each endpoint."""

    def __init__(self, service: Service, groups: Sequence[EndpointGroup] = ()):
        """`groups` are described along with the endpoints here."""
        super().__init__(service)
        self._groups = groups
        self._document: Response | None = None  # made when it is first asked for: a start has better things to do for 80 ms

    async def models(self, request: Request) -> Response:
        """GET /v1/models."""
        found = [_model(served_model, self.service) for served_model in self.service.served_models]
        if pool := self.service.pool:
            await pool.refresh()
            for pooled in pool.models.values():
                if pooled is not pool.first:
                    about = _model(pool.find(pooled.id), self.service)
                    found.append(about | {"townhall": about["townhall"] | {"state": pooled.shown}})
        return json_response({"object": "list", "data": found})

    async def model(self, request: Request) -> Response:
        """GET /v1/models/{id}."""
        return json_response(_model(self.service.find(request.path_params["id"]), self.service))

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        arrived = time.monotonic()
        asked = await self.read(request, ChatRequest)
        with await self.service.hold(asked.model) as service:
            planned = await self.planned(service, request, asked)
            return await self._answer(service, request, asked, planned, ChatResponseBuilder, bool(asked.logprobs), arrived)

    async def completions(self, request: Request) -> Response:
        """POST /v1/completions."""
        arrived = time.monotonic()
        asked = await self.read(request, CompletionRequest)
        with await self.service.hold(asked.model) as service:
            planned = await service.plan(lambda planner: planner.completion(asked))
            return await self._answer(service, request, asked, planned, TextResponseBuilder, asked.logprobs is not None, arrived)

    async def embeddings(self, request: Request) -> Response:
        """POST /v1/embeddings."""
        asked = await self.read(request, EmbeddingsRequest)
        pool, own = self.service.pool, self.service.served_models.bare.id
        if asked.model and (asked.model == own or (pool and pool.serves(asked.model))):
            found = await self.embed(request, asked.model, asked.inputs)
            return json_response(await asyncio.to_thread(embedding_list, asked, np.stack(found.vectors), found.tokens, asked.model))
        headers = {} if asked.model in (None, EMBEDDER) else self._no_embedder(asked.model)
        return json_response(await asyncio.to_thread(embeddings, asked), headers=headers)

    async def tokenize(self, request: Request) -> Response:
        """POST /v1/tokenize."""
        asked = await self.read(request, TokenizeRequest)
        headers = self._warning(asked.model)
        with await self.service.hold(asked.model) as service:
            llama = service.llama

            def work(planner: Planner) -> Any:
                return llama.tokenizer.encode(asked.prompt, bos=asked.add_special_tokens)

            tokens = await service.plan(work)
        return json_response({"tokens": tokens, "count": len(tokens), "max_model_len": llama.max_context}, headers=headers)

    async def detokenize(self, request: Request) -> Response:
        """POST /v1/detokenize."""
        asked = await self.read(request, DetokenizeRequest)
        headers = self._warning(asked.model)
        with await self.service.hold(asked.model) as service:
            tokenizer = service.llama.tokenizer
            if wrong := [n for n in asked.tokens if n >= tokenizer.vocab_size]:
                raise APIError(400, f"{wrong[0]} is no token of this model, which has {tokenizer.vocab_size}", "tokens")
            return json_response({"prompt": await service.plan(lambda planner: tokenizer.decode(asked.tokens))}, headers=headers)

    async def health(self, request: Request) -> Response:
        """GET /health: 200 where requests are served, 503 before and after."""
        state = self.service.health()
        return json_response(state, 200 if state["status"] == "ok" else 503)

    async def metrics(self, request: Request) -> Response:
        """GET /metrics."""
        return Response(self.service.metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def openapi(self, request: Request) -> Response:
        """GET /openapi.json."""
        if self._document is None:
            self._document = json_response(await asyncio.to_thread(document, self._groups))
        return self._document

    async def _answer(
        self,
        service: Service,
        request: Request,
        asked: Generate,
        planned: PlannedRequest,
        kind: Callable[..., ResponseBuilder],
        logprobs: bool,
        arrived: float,
    ) -> Response:
        events, cancel = self.queued(service, request, asked, planned, arrived)
        reply = kind(planned, service.llama.tokenizer, logprobs)
        headers = planned.headers
        if asked.stream:
            keep_alive = self.service.options.limits.keep_alive
            return EventStream(stream(events, reply, asked.with_usage, len(planned.runs), keep_alive), headers, cancel)
        try:
            figures = await whole(request, events, reply.add)
            # with log-probabilities it may be megabytes of JSON, for which no other client should have to wait
            return await asyncio.to_thread(lambda: json_response(reply.whole(figures), headers=headers))
        finally:
            cancel()

    def _warning(self, model: str | None) -> dict[str, str]:
        """The header of a request that may name a model; APIError 404 for one that is not here, where the server is strict."""
        if model is None or (self.service.pool and self.service.pool.knows(model)):
            return {}
        _, warning = self.service.served_models.choose(model, self.service.options.strict_model)
        return {WARNING: warning} if warning else {}

    def _no_embedder(self, model: str) -> dict[str, str]:
        """The header of a request that names another model for embeddings; APIError 404 where the server is strict."""
        own = self.service.served_models.bare.id
        said = f"{ascii(model[:100])} makes no embeddings; {EMBEDDER} and {ascii(own)} do"
        if self.service.options.strict_model:
            raise APIError(404, said, "model", "model_not_found")
        return {WARNING: said}
