"""/townhall/models…: which models are there, which one is loaded and on what device, what they take of its memory, how fast it answers.

A server holds the model that it was started with; another one is loaded by starting a server with it, which the reply says.
"""

import asyncio
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from ext.tinygrad.errors import TownhallError
from townhall.default_window import WINDOW
from townhall.server.endpoints import COUNT, JSON, TEXT, Endpoint, EndpointGroup, listed, reference, schema
from townhall.server.errors import APIError
from townhall.server.guard import json_response
from townhall.server.service import Service

if TYPE_CHECKING:
    from app.models.llama.memory_plan import DeviceRoom  # it brings tinygrad, which a server over a double does without

SLOTS = 4  # where the server does not say yet
MOST_MODELS, MOST_PLANNED = 200, 12
DEPTH = 2  # folders below one that is looked at: weights/LLaMA-2/7B
MAX_CONTEXT, MAX_SLOTS = 1 << 20, 256

_NULLABLE_TEXT: JSON = {"type": ["string", "null"]}
_NUMBER: JSON = {"type": "number", "minimum": 0}
_PARTS = {"nbytes": COUNT, "weights": COUNT, "cache": COUNT, "scratch": COUNT, "process": COUNT}
REPLIES: dict[str, JSON] = {
    "ModelFile": schema(
        {"name": TEXT, "format": TEXT, "architecture": TEXT, "parameters": COUNT, "bytes": COUNT, "types": listed(TEXT)}
        | {"context_length": COUNT, "loaded": {"type": "boolean"}, "fault": TEXT}
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
        | {"how": TEXT}
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
    ),
}


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
        ]
        return EndpointGroup(endpoints, REPLIES)

    async def files(self, request: Request) -> Response:
        """GET /townhall/models."""
        found = await asyncio.to_thread(lambda: [self._described(name, path) for name, path in self._paths().items()])
        adapters = [{"name": spec.name, "scale": spec.scale} for spec in self._service.options.adapters]
        how = f"townhall {'web' if self._service.options.page else 'serve'} --model FILE"
        return json_response({"loaded": self._loaded(), "models": found, "switchable": False, "how": how, "adapters": adapters})

    async def fit(self, request: Request) -> Response:
        """GET /townhall/models/fit."""
        health = self._service.health()
        names = request.query_params.getlist("model")
        if len(names) > MOST_PLANNED:
            raise APIError(400, f"{len(names)} models are more than the {MOST_PLANNED} that are planned at a time", "model")
        opened = self._service.opened
        window = opened.llama.max_context if opened else WINDOW
        context = _number(request, "context", window, MAX_CONTEXT)
        slots = _number(request, "slots", (health["slots"] or {}).get("most") or SLOTS, MAX_SLOTS)

        def planned() -> JSON:
            from app.models.llama.memory_plan import ModelDemand, plan

            there = self._paths()
            if unknown := [name for name in names if name not in there]:
                raise APIError(404, f"there is no model {unknown[0][:100]!r}; /townhall/models lists them", "model", "model_not_found")
            paths = [there[name] for name in names] if names else [path] if (path := self._path()) else []
            picture = plan([ModelDemand.of(path, context, slots) for path in paths], self._rooms()).to_json()
            for model in [one for device in picture["devices"] for one in device["models"]] + picture["unplaced"]:
                del model["path"]
            return {**picture, "resident": resident()}

        return json_response(await asyncio.to_thread(planned))

    async def meter(self, request: Request) -> Response:
        """GET /townhall/models/meter."""
        value, scheduler = self._service.metrics.registry.get_sample_value, self._service.scheduler
        total, replies = value("townhall_tokens_per_second_sum") or 0.0, value("townhall_tokens_per_second_count") or 0
        counts = {name: int(value(f"townhall_{name}_total") or 0) for name in ("prompt_tokens", "completion_tokens")}
        state = {"active": scheduler.active, "waiting": scheduler.waiting, **counts, "replies": int(replies), "rate_sum": total}
        return json_response({**state, "tokens_per_second": round(total / replies, 1) if replies else None})

    def _path(self) -> Path | None:
        """The file of the loaded model; None where it is a double or is being loaded."""
        path = getattr(self._service.opened, "path", None)
        return Path(path) if path and Path(path).exists() else None

    def _paths(self) -> dict[str, Path]:
        """Every checkpoint by its name: its path from its folder on, the loaded one's own name."""
        found = {}
        if path := self._path():
            found[path.name] = path
        for folder in self._service.options.model_folders:
            for one in checkpoints(folder):
                name = one.relative_to(folder).as_posix() if one != folder else folder.name
                if not any(one.resolve() == known.resolve() for known in found.values()):
                    found[name if name not in found else f"{folder.name}/{name}"] = one
        return dict(list(found.items())[:MOST_MODELS])

    def _described(self, name: str, path: Path) -> JSON:
        loaded = (own := self._path()) is not None and own.resolve() == path.resolve()
        return {"name": name, "loaded": loaded, **_read(path, _stamp(path))}

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


def checkpoints(folder: Path, depth: int = DEPTH) -> Iterator[Path]:
    """GGUF files (of a split one its first part) and folders of Hugging Face or Meta, in a folder and those below it, sorted."""
    try:
        if any((folder / name).is_file() for name in ("config.json", "params.json")):
            yield folder
            return
        entries = sorted(folder.iterdir())
    except OSError:
        return
    for path in entries:
        if path.suffix == ".gguf" and path.is_file() and int(_part(path) or 1) == 1:
            yield path
        elif path.is_dir() and depth and not path.name.startswith("."):
            yield from checkpoints(path, depth - 1)


def _part(path: Path) -> str:
    """The number of a split file's part (model-00002-of-00005.gguf); "" of a whole one."""
    parts = path.stem.rsplit("-", 3)
    return parts[1] if len(parts) == 4 and parts[2] == "of" and parts[1].isdecimal() and parts[3].isdecimal() else ""


def _stamp(path: Path) -> tuple[int, int]:
    """Changes with a file, or with what is in a folder."""
    try:
        stat = path.stat()
    except OSError:
        return 0, 0
    return stat.st_mtime_ns, stat.st_size


@lru_cache(MOST_MODELS * 2)
def _read(path: Path, stamp: tuple[int, int]) -> JSON:
    """What its headers say; read once for each `stamp`."""
    from app.models.llama.checkpoint import open_checkpoint
    from app.models.llama.checkpoint.checkpoint import parameters

    empty: JSON = {"format": "", "architecture": "", "parameters": 0, "bytes": 0, "types": [], "context_length": 0, "fault": ""}
    try:
        checkpoint = open_checkpoint(path)
        config = checkpoint.config
        sizes: dict[str, int] = {}
        for name in checkpoint.tensor_names:
            stored = checkpoint.stored(name)
            sizes[stored.type] = sizes.get(stored.type, 0) + stored.nbytes
        return {
            "format": checkpoint.format,
            "architecture": config.architecture,
            "parameters": parameters(config),
            "bytes": checkpoint.nbytes,
            "types": sorted(sizes, key=lambda type: -sizes[type]),
            "context_length": config.context_length,
            "fault": "",
        }
    except TownhallError as error:
        return empty | {"fault": str(error).replace(str(path), path.name)}


def resident() -> int | None:
    """Bytes of this process in memory; None where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def _number(request: Request, name: str, default: int, most: int) -> int:
    text = request.query_params.get(name, "")
    if not text:
        return max(1, min(default, most))
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text[:20]) <= most:
        raise APIError(400, f"{name} must be a whole number from 1 to {most}", name)
    return int(text)
