"""/townhall/models…: which models are there, which are in memory and on what device, what they take of it, how fast it answers.

A server with --models-dir loads and unloads models, by itself and as it is asked to here; any other holds the model that it was started
with, and the reply says how to start one with another.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from ext.tinygrad.errors import TownhallError
from townhall.default_window import WINDOW
from townhall.process_memory import resident
from townhall.server.endpoints import COUNT, JSON, TEXT, Endpoint, EndpointGroup, listed, read_json, reference, schema
from townhall.server.errors import APIError
from townhall.server.guard import json_response
from townhall.server.model_listing import described, listing
from townhall.server.model_pool import ModelPool, PooledModel
from townhall.server.request_model import RequestModel
from townhall.server.service import Service

if TYPE_CHECKING:
    from app.models.llama.memory_plan import DeviceRoom  # it brings tinygrad, which a server over a double does without

SLOTS = 4  # where the server does not say yet
MOST_PLANNED = 12
MAX_CONTEXT, MAX_SLOTS = 1 << 20, 256

_NULLABLE_TEXT: JSON = {"type": ["string", "null"]}
_NUMBER: JSON = {"type": "number", "minimum": 0}
_NULLABLE_COUNT: JSON = {"type": ["integer", "null"]}
_PARTS = {"nbytes": COUNT, "weights": COUNT, "cache": COUNT, "scratch": COUNT, "process": COUNT}
REPLIES: dict[str, JSON] = {
    "ModelFile": schema(
        {"name": TEXT, "format": TEXT, "architecture": TEXT, "parameters": COUNT, "bytes": COUNT, "types": listed(TEXT)}
        | {"context_length": COUNT, "loaded": {"type": "boolean"}, "fault": TEXT},
        **{"id": TEXT, "state": {"enum": ["disk", "waiting", "loading", "loaded", "leaving"]}, "progress": _NUMBER}
        | {"pinned": {"type": "boolean"}, "device": _NULLABLE_TEXT, "planned": _NULLABLE_COUNT, "resident": _NULLABLE_COUNT}
        | {"active": COUNT, "queued": COUNT, "error": TEXT},
    ),
    "LoadedModel": schema(
        {"id": TEXT, "name": _NULLABLE_TEXT, "context": COUNT, "slots": {"type": ["integer", "null"]}, "device": TEXT, "kind": TEXT}
        | {"driver": TEXT, "description": TEXT, "memory": COUNT}
    ),
    "ModelFiles": schema(
        {
            "loaded": {"anyOf": [reference("LoadedModel"), {"type": "null"}]},
            "models": listed("ModelFile"),
            "switchable": {"type": "boolean"},
        }
        | {"how": TEXT, "memory": listed(schema({"name": TEXT, "budget": COUNT, "used": COUNT}))}
    ),
    "PlannedModel": schema({"name": TEXT, "context": COUNT, "slots": COUNT, **_PARTS}),
    "MemoryPicture": schema(
        {
            "devices": listed(
                schema(
                    {"name": TEXT, "about": TEXT, "memory": COUNT, "reserve": COUNT, "used": COUNT, "free": {"type": "integer"}}
                    | {"models": listed("PlannedModel")}
                )
            ),
            "unplaced": listed(
                schema(
                    {"name": TEXT, "context": COUNT, "slots": COUNT, **_PARTS, "missing": COUNT, "device": TEXT, "remedies": listed(TEXT)}
                )
            ),
            "resident": {"type": ["integer", "null"], "description": "Bytes of this process, as the system counts them."},
        }
    ),
    "Meter": schema(
        {"active": COUNT, "waiting": COUNT, "prompt_tokens": COUNT, "completion_tokens": COUNT, "replies": COUNT}
        | {"rate_sum": {**_NUMBER, "description": "Sum of the replies' tokens per second: what it grows by, over `replies`, is a mean."}}
        | {"tokens_per_second": {"type": ["number", "null"]}}
        | {"prefix_cache": schema({"queries": COUNT, "hits": COUNT})}
        | {"speculation": {"anyOf": [schema({"draft": COUNT, "accepted": COUNT}), {"type": "null"}]}}
    ),
}


class ModelChoice(RequestModel):
    """`model` is an id or a name that /townhall/models lists."""

    model: str = Field(max_length=1000)


class ModelPin(ModelChoice):
    """`pinned`: stays in memory."""

    pinned: bool


class ModelRoutes:
    """One method for each endpoint."""

    def __init__(self, service: Service):
        self._service = service

    def group(self) -> EndpointGroup:
        """The endpoints."""
        base = "/townhall/models"
        wanted: dict[str, JSON] = {
            "model": {**listed(TEXT), "description": "Names that /townhall/models lists; none: the one that is loaded."},
            "context": {**COUNT, "minimum": 1, "maximum": MAX_CONTEXT},
            "slots": {**COUNT, "minimum": 1, "maximum": MAX_SLOTS},
        }
        endpoints = [
            Endpoint("GET", base, self.files, "The models that are there, and the one that is loaded.", "ModelFiles"),
            Endpoint("GET", f"{base}/fit", self.fit, "What models take of the memory.", "MemoryPicture", query=wanted, errors=(404,)),
            Endpoint("GET", f"{base}/meter", self.meter, "How much and how fast it answers.", "Meter"),
            Endpoint("POST", f"{base}/load", self.load, "Have a model loaded.", "ModelFile", ModelChoice, errors=(404, 409), status=202),
            Endpoint("POST", f"{base}/unload", self.unload, "Have one unloaded.", "ModelFile", ModelChoice, errors=(404, 409), status=202),
            Endpoint("POST", f"{base}/pin", self.pin, "Keep one in memory, or no longer.", "ModelFile", ModelPin, errors=(404, 409)),
        ]
        return EndpointGroup(endpoints, REPLIES)

    async def files(self, request: Request) -> Response:
        """GET /townhall/models."""
        pool = self._service.pool
        if pool:
            pool.settle()
            await pool.refresh()
        there = [(one.name, one.path) for one in pool.models.values()] if pool else list(self._paths().items())
        found = await asyncio.to_thread(lambda: [self._file(name, path) for name, path in there])
        adapters = [{"name": spec.name, "scale": spec.scale} for spec in self._service.options.adapters]
        command = f"townhall {'web' if self._service.options.page else 'serve'}"
        how = f"{command} --models-dir FOLDER" if pool else f"{command} --model FILE"
        memory = pool.rooms.to_json(pool.models.values()) if pool else []
        kept = {"loaded": self._loaded(), "models": found, "switchable": pool is not None, "how": how, "memory": memory}
        return json_response({**kept, "adapters": adapters})

    async def load(self, request: Request) -> Response:
        """POST /townhall/models/load."""
        return await self._changed(request, ModelChoice, 202, lambda pool, pooled, asked: pool.want(pooled))

    async def unload(self, request: Request) -> Response:
        """POST /townhall/models/unload."""
        return await self._changed(request, ModelChoice, 202, lambda pool, pooled, asked: pool.let_go(pooled))

    async def pin(self, request: Request) -> Response:
        """POST /townhall/models/pin; what is pinned is loaded."""

        def pinned(pool: ModelPool, pooled: PooledModel, asked: ModelPin) -> None:
            if asked.pinned:
                pool.want(pooled)
            pooled.pinned = asked.pinned

        return await self._changed(request, ModelPin, 200, pinned)

    async def _changed(
        self, request: Request, kind: type[ModelChoice], status: int, change: Callable[[ModelPool, PooledModel, Any], object]
    ) -> Response:
        if (pool := self._service.pool) is None:
            raise APIError(409, "this server holds one model; start it with --models-dir FOLDER", code="not_switchable")
        self._service.served_models  # noqa: B018  (503 while the first model is loaded, whose device settles the others')
        asked = await read_json(request, kind, self._service.options.limits)
        await pool.refresh()
        if (pooled := pool.named(asked.model)) is None:
            raise APIError(404, f"there is no model {asked.model[:100]!r}; /townhall/models lists them", "model", "model_not_found")
        change(pool, pooled, asked)
        return json_response(await asyncio.to_thread(self._file, pooled.name, pooled.path), status)

    async def fit(self, request: Request) -> Response:
        """GET /townhall/models/fit."""
        health = self._service.health()
        names = request.query_params.getlist("model")
        if len(names) > MOST_PLANNED:
            raise APIError(400, f"{len(names)} models are more than the {MOST_PLANNED} that are planned at a time", "model")
        opened, kv = self._service.opened, str(self._service.options.log_settings.get("kv") or "f16")
        window = opened.llama.max_context if opened else WINDOW
        context = _number(request, "context", window, MAX_CONTEXT)
        slots = _number(request, "slots", (health["slots"] or {}).get("most") or SLOTS, MAX_SLOTS)

        def planned() -> JSON:
            from app.models.llama.memory_plan import ModelDemand, plan

            there = self._paths()
            if unknown := [name for name in names if name not in there]:
                raise APIError(404, f"there is no model {unknown[0][:100]!r}; /townhall/models lists them", "model", "model_not_found")
            paths = [there[name] for name in names] if names else [path] if (path := self._path()) else []
            picture = plan([ModelDemand.of(path, context, slots, kv) for path in paths], self._rooms()).to_json()
            for model in [one for device in picture["devices"] for one in device["models"]] + picture["unplaced"]:
                del model["path"]
            return {**picture, "resident": resident()}

        return json_response(await asyncio.to_thread(planned))

    async def meter(self, request: Request) -> Response:
        """GET /townhall/models/meter."""
        scheduler, metrics = self._service.scheduler, self._service.metrics

        def value(name: str) -> float:
            return metrics.total(f"townhall_{name}") or 0.0

        total, replies = value("tokens_per_second_sum"), int(value("tokens_per_second_count"))
        counts = {name: int(value(f"{name}_total")) for name in ("prompt_tokens", "completion_tokens")}
        cache = {name: int(value(f"prefix_cache_{name}_total")) for name in ("queries", "hits")}
        guesses = {name: int(value(f"spec_decode_num_{name}_tokens_total")) for name in ("draft", "accepted")}
        state = {
            "active": scheduler.active,
            "waiting": scheduler.waiting,
            **counts,
            "prefix_cache": cache,
            "speculation": guesses if self._service.options.speculate else None,
            "replies": replies,
            "rate_sum": total,
        }
        return json_response({**state, "tokens_per_second": round(total / replies, 1) if replies else None})

    def _path(self) -> Path | None:
        """The file of the loaded model; None where it is a double or is being loaded."""
        path = getattr(self._service.opened, "path", None)
        return Path(path) if path and Path(path).exists() else None

    def _paths(self) -> dict[str, Path]:
        """Every checkpoint by its name."""
        return listing(self._service.options.model_folders, self._path())

    def _file(self, name: str, path: Path | None) -> JSON:
        """A checkpoint as the listing has it, and what the pool says of it."""
        about: JSON = {"name": name, "loaded": False, **(described(path) if path else {})}
        if pool := self._service.pool:
            pooled = pool.named(name)
            return about | (_pooled(pool, pooled) if pooled else {})
        own = self._path()
        return about | {"loaded": own is not None and path is not None and own.resolve() == path.resolve()}

    def _loaded(self) -> JSON | None:
        opened = self._service.opened
        if opened is None:
            return None
        device = opened.backend.to_json()
        words: dict[str, Any] = {"device": device.get("device", ""), "kind": device.get("kind", ""), "driver": device.get("driver", "")}
        words |= {"description": opened.backend.describe(), "memory": device.get("memory") or 0}
        slots = (self._service.health()["slots"] or {}).get("most")
        path = self._path()
        about = {"id": self._service.options.model_id, "name": path.name if path else None}
        return {**about, "context": opened.llama.max_context, "slots": slots, **words}

    def _rooms(self) -> "list[DeviceRoom]":
        """The device that holds the model, and the host."""
        from app.models.llama.memory_plan import DeviceRoom
        from townhall.device_rooms import host_memory

        device = self._loaded()
        memory = host_memory()
        host = [DeviceRoom.of("CPU", memory, host=True, about=device["description"] if device and device["kind"] == "cpu" else "")]
        if device is None or device["kind"] == "cpu" or not device["memory"]:
            return host
        return [DeviceRoom.of(device["device"], device["memory"], about=device["description"]), *host]


def _pooled(pool: ModelPool, pooled: PooledModel) -> JSON:
    """What a listing says of a model beside its headers."""
    try:
        planned = pool.rooms.planned(pooled, pooled.device or next(iter(pool.rooms.names), "")) or None
    except TownhallError:
        planned = None
    scheduler = pooled.service.scheduler
    return {
        "id": pooled.id,
        "loaded": pooled.state == "loaded",
        "state": pooled.shown,
        "progress": pool.progress(pooled),
        "pinned": pooled.pinned,
        "device": pooled.device,
        "planned": planned,
        "resident": pooled.resident,
        "active": scheduler.active,
        "queued": scheduler.waiting + len(pooled.waiters),
        "error": pooled.error,
    }


def _number(request: Request, name: str, default: int, most: int) -> int:
    text = request.query_params.get(name, "")
    if not text:
        return max(1, min(default, most))
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text[:20]) <= most:
        raise APIError(400, f"{name} must be a whole number from 1 to {most}", name)
    return int(text)
