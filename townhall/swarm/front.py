"""The door of a swarm: one ASGI application that knows all models and sends each request to a replica."""

import asyncio
import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from townhall.server.errors import APIError
from townhall.server.guard import Guard, error_response, json_response, read_body
from townhall.server.planned_request import DROPPED, WARNING
from townhall.server.serve_options import ServeOptions
from townhall.swarm.catalog import Catalog, SwarmEntry
from townhall.swarm.forwarding import ForwardedRequest, Headers
from townhall.swarm.front_metrics import FrontMetrics
from townhall.swarm.merged_metrics import merged
from townhall.swarm.prefix_digests import prefix_digests, session_digest
from townhall.swarm.relay import REPLICA, Relay
from townhall.swarm.request_log import RequestLog

REFRESH = 2.0  # seconds between two looks at what is deployed
ANSWERS_IN = 10.0  # seconds that a replica has to describe itself
# what a replica answers for all of them; characters, libraries and chats are files of one machine
FORWARDED = ("chat/completions", "completions", "embeddings", "tokenize", "detokenize", "responses")
CONVERSATIONS = ("/completions", "/responses", "/chat", "/generate")  # what fills a cache; the others go wherever there is least to do
OLLAMA = ("chat", "generate", "embed", "embeddings", "show", "version")


class ModelClient(Protocol):
    """A model's replicas, as Ray's handle reaches them, or a test's double."""

    name: str

    def ask(self, request: ForwardedRequest, digests: list[bytes]) -> Any:
        """A `RoutedAnswer`."""

    async def describe(self) -> list[dict[str, Any]]:
        """What each replica says of itself."""

    async def metrics(self) -> list[tuple[str, str]]:
        """(replica, Prometheus' text) of each."""


@dataclass
class FrontSettings:
    """Settings of the front."""

    options: ServeOptions  # keys, hosts, origins and limits
    log: str  # path of the request log
    models: Callable[[], list[ModelClient]] = field(default=list)  # those that are deployed now


class Front:
    """Holds the catalogue and answers; `application` is what Ray's proxy calls, through the guard that `townhall serve` has as well."""

    def __init__(self, settings: FrontSettings):
        self.options, self._models = settings.options, settings.models
        self.metrics, self._log = FrontMetrics(), RequestLog(Path(settings.log))
        self._clients: dict[str, ModelClient] = {}
        self._catalog, self._looked = Catalog(), float("-inf")
        self._lock = asyncio.Lock()
        versions = [(base + path) for base in ("/v1/", "/") for path in FORWARDED]
        routes = [
            *(Route(path, self.forward, methods=["POST"]) for path in versions),
            *(Route(f"/api/{path}", self.forward, methods=["GET"] if path == "version" else ["POST"]) for path in OLLAMA),
            *(Route(f"{base}/models", self.list_models) for base in ("/v1", "")),
            *(Route(f"{base}/models/{{id:path}}", self.show_model) for base in ("/v1", "")),
            *(Route(f"/api/{path}", self.list_for_ollama) for path in ("tags", "ps")),
            Route("/health", self.health),
            Route("/metrics", self.show_metrics),
            Route("/townhall/swarm", self.show_swarm),
            Route("/openapi.json", self.forward),
            Route("/{rest:path}", _not_here, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
        ]
        middleware = [Middleware(Guard, service=self)]
        if origins := list(self.options.cors):
            exposed = [DROPPED, WARNING, REPLICA, "Retry-After"]
            cors = Middleware(
                CORSMiddleware, allow_origins=origins, allow_methods=["GET", "POST"], allow_headers=["*"], expose_headers=exposed
            )
            middleware.insert(0, cors)
        self.application = Starlette(routes=routes, middleware=middleware)
        self.application.router.redirect_slashes = False

    def count(self, path: str, status: int) -> None:
        """A request to this route was answered; 0 where it was not."""
        self.metrics.front.labels(path, str(status)).inc()

    async def forward(self, request: Request) -> Response:
        """Any request that one model answers."""
        arrived = time.monotonic()
        body = await read_body(request, self.options.limits)
        fields = _fields(body)
        asked = fields.get("model", fields.get("name"))
        entry, name = await self._choose(asked if isinstance(asked, str) else None)
        if name != asked and name is not None:
            fields["model"] = name
            body = json.dumps(fields, ensure_ascii=False).encode(errors="surrogatepass")
        session = request.headers.get("x-session-id")
        talks = request.scope["path"].endswith(CONVERSATIONS)
        digests = [] if not talks else [session_digest(session[:256])] if session else prefix_digests(fields)
        headers: Headers = request.scope["headers"]
        sent = ForwardedRequest.of(request.method, request.scope["path"], request.scope.get("query_string", b""), headers, body)
        relay = Relay(uuid.uuid4().hex[:16], self._clients[entry.name], sent, digests, self._log, self.metrics, arrived)
        return await relay.response(self.options.limits.request)

    async def list_models(self, request: Request) -> Response:
        """GET /v1/models."""
        return json_response({"object": "list", "data": (await self._current()).listed()})

    async def show_model(self, request: Request) -> Response:
        """GET /v1/models/{id}."""
        asked = request.path_params["id"]
        for one in (await self._current()).listed():
            if one["id"] == asked:
                return json_response(one)
        raise APIError(404, f"the model {ascii(asked[:100])} is not served here", "model", "model_not_found")

    async def list_for_ollama(self, request: Request) -> Response:
        """GET /api/tags and /api/ps: each model's own list, under the names that the swarm has for them."""
        found: list[dict[str, Any]] = []
        seen = set[str]()
        for entry in (await self._current()).entries:
            relay = self._clients[entry.name].ask(ForwardedRequest("GET", request.scope["path"]), [])
            try:
                for one in json.loads(await relay.whole(ANSWERS_IN)).get("models", []):
                    plain = str(one["name"]).removesuffix(":latest")
                    name = f"{plain}@{entry.name}:latest" if plain in seen and plain != entry.name else one["name"]
                    seen.add(plain)
                    found.append({**one, "name": name, "model": name})
            finally:
                relay.close()
        return json_response({"models": found})

    async def health(self, request: Request) -> Response:
        """GET /health: 200 where a model answers, 503 before."""
        catalog = await self._current()
        state = {"status": "ok" if catalog.entries else "loading", "models": [entry.name for entry in catalog.entries]}
        return json_response(state, 200 if catalog.entries else 503)

    async def show_metrics(self, request: Request) -> Response:
        """GET /metrics: the front's, and every replica's with `model` and `replica` as labels."""
        await self._current()
        clients = list(self._clients.values())
        found = await asyncio.gather(*(client.metrics() for client in clients))
        texts = [({"model": client.name, "replica": replica}, text) for client, own in zip(clients, found) for replica, text in own]
        body = await asyncio.to_thread(merged, texts)
        return Response(self.metrics.text().encode() + body, media_type="text/plain; version=1.0.0; charset=utf-8")

    async def show_swarm(self, request: Request) -> Response:
        """GET /townhall/swarm: the models and their replicas."""
        return json_response(await self.status())

    async def status(self) -> dict[str, Any]:
        """The models, and what each of their replicas says of itself."""
        await self.refresh()
        clients = list(self._clients.values())
        found = await asyncio.gather(*(client.describe() for client in clients))
        return {"models": [{"name": client.name, "replicas": own} for client, own in zip(clients, found)]}

    async def refresh(self) -> None:
        """Look at what is deployed now. A model counts from when a replica has described it, until it is not deployed any more."""
        async with self._lock:
            clients = {client.name: client for client in await asyncio.to_thread(self._models)}
            for gone in self._clients.keys() - clients.keys():
                del self._clients[gone]
            for name, client in clients.items():
                self._clients.setdefault(name, client)
            entries = []
            for name, said in zip(self._clients, await asyncio.gather(*(client.describe() for client in self._clients.values()))):
                if said:
                    entries.append(SwarmEntry(name, said[0]["position"], tuple(said[0]["served"])))
                else:  # all of its replicas are being replaced: requests for it wait for the first
                    entries += [entry for entry in self._catalog.entries if entry.name == name]
            self._catalog, self._looked = Catalog(entries), time.monotonic()

    async def _current(self) -> Catalog:
        if not self._catalog.entries or time.monotonic() - self._looked > REFRESH:
            await self.refresh()
        return self._catalog

    async def _choose(self, asked: str | None) -> tuple[SwarmEntry, str | None]:
        found = self._catalog.find(asked)
        if found is None or asked not in (found[0].name, *found[0].personas):
            await self._current()
            found = self._catalog.find(asked)
        if found is None:
            raise APIError(503, "no model of this swarm answers yet; try again in a moment", code="loading", retry_after=2)
        return found


async def _not_here(request: Request) -> Response:
    path = request.scope["path"]
    own = path.startswith("/townhall/")
    why = "; characters, libraries and chats are files of one machine, which `townhall serve` offers" if own else ""
    return error_response(APIError(404, f"there is no {request.method} {path} in a swarm{why}", code="not_found"), path)


def _fields(body: bytes) -> dict[str, Any]:
    """The body's JSON object; empty where it is none, which the replica says in its own words."""
    try:
        found = json.loads(body) if body else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
