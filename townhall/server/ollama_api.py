"""Ollama's API (/api/…), for clients that speak only that: chat, generate, embeddings, and what they ask about models.

Bodies become those of chat completions; replies are JSON, or lines of JSON as they come.
"""

import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from townhall import __version__
from townhall.library.embedder import NAME as EMBEDDER
from townhall.server.api_access import ApiAccess
from townhall.server.embeddings import EmbeddingsRequest, embeddings, shortened
from townhall.server.endpoints import TEXT, Endpoint, EndpointGroup, listed, schema
from townhall.server.errors import APIError
from townhall.server.event_stream import Events, EventStream, arriving, whole
from townhall.server.guard import json_response
from townhall.server.job import AnswerEnd, JobDone, JobFailed, RequestFigures, TextEvent
from townhall.server.model_facts import ModelFacts
from townhall.server.model_listing import described
from townhall.server.ollama_requests import (
    TAG,
    OllamaAsked,
    OllamaChat,
    OllamaEmbed,
    OllamaEmbedding,
    OllamaGenerate,
    OllamaName,
    plain_name,
)
from townhall.server.planned_request import PlannedRequest
from townhall.server.requests import ChatRequest, CompletionRequest, Generate
from townhall.server.served_models import ServedModel
from townhall.server.tools import CallReader

JSON = dict[str, Any]
VERSION = "0.12.0"  # of Ollama's API, which clients compare
NDJSON = "application/x-ndjson"


def stamp(at: float | None = None) -> str:
    """A time as Ollama writes it."""
    return datetime.fromtimestamp(time.time() if at is None else at, UTC).isoformat().replace("+00:00", "Z")


class OllamaWriter:
    """One reply in the making, in lines: `said` shapes what is new, chat's message or generate's text."""

    def __init__(self, planned: PlannedRequest, name: str, said: Callable[[str, str, list[JSON]], JSON], started: float):
        self._reader = planned.calls.reader() if planned.calls else CallReader()
        self._name, self._said, self._started, self._sent = name, said, started, 0
        self._reason = "stop"
        self._thoughts: list[str] = []
        self._planned = planned

    def text(self, event: TextEvent) -> list[JSON]:
        """The line of more text; calls come whole, at their end."""
        self._thoughts.append(event.reasoning)
        words = "".join(part for part in self._reader.push(event.text) if isinstance(part, str))
        return [self._line(words, event.reasoning)] if words or event.reasoning else []

    def end(self, ended: AnswerEnd) -> list[JSON]:
        """The lines of what was held back, and of the calls."""
        words = "".join(part for part in self._reader.flush() if isinstance(part, str))
        self._reason = ended.finish_reason
        calls = self.calls()
        return [self._line(words, "", calls)] if words or calls else []

    def calls(self) -> list[JSON]:
        """The functions that are called; one that was cut off is none."""
        found = []
        for call in self._reader.calls:
            try:
                found.append({"function": {"name": call.name, "arguments": json.loads(call.arguments)}})
            except ValueError:
                continue
        return found

    def last(self, figures: RequestFigures, whole: bool = False) -> JSON:
        """The last line, or the `whole` reply. Durations are in nanoseconds."""
        words, thoughts = (self._reader.content, "".join(self._thoughts)) if whole else ("", "")
        total = time.monotonic() - self._started
        read = min(figures.first_seconds if figures.first_seconds is not None else total, total)
        return {
            **self._line(words, thoughts, self.calls() if whole else []),
            "done": True,
            "done_reason": self._reason,
            "total_duration": _nanoseconds(total),
            "load_duration": 0,
            "prompt_eval_count": figures.prompt_tokens,
            "prompt_eval_duration": _nanoseconds(read),
            "eval_count": figures.completion_tokens,
            "eval_duration": _nanoseconds(figures.decode_seconds),
            "townhall": self._planned.receipt(figures, self._reader.content),
        }

    def _line(self, words: str, thoughts: str, calls: list[JSON] | None = None) -> JSON:
        return {"model": self._name, "created_at": stamp(), **self._said(words, thoughts, calls or []), "done": False}


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


def _message(words: str, thoughts: str, calls: list[JSON]) -> JSON:
    message: JSON = {"role": "assistant", "content": words}
    return {"message": message | ({"thinking": thoughts} if thoughts else {}) | ({"tool_calls": calls} if calls else {})}


def _response(words: str, thoughts: str, calls: list[JSON]) -> JSON:
    return {"response": words, **({"thinking": thoughts} if thoughts else {})}


def _json_line(values: JSON) -> bytes:
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


async def _lines(events: Events, writer: OllamaWriter, keep_alive: float) -> AsyncIterator[bytes]:
    async for came in arriving(events, keep_alive):
        if isinstance(came, TextEvent):
            for line in writer.text(came):
                yield _json_line(line)
        elif isinstance(came, AnswerEnd):
            for line in writer.end(came):
                yield _json_line(line)
        elif isinstance(came, JobDone):
            yield _json_line(writer.last(came.figures))
        elif isinstance(came, JobFailed):
            yield _json_line({"error": came.error.message})


class OllamaRoutes(ApiAccess):
    """One method for each endpoint."""

    def group(self) -> EndpointGroup:
        """Declared for the routes and the document."""
        generated = (404, 422, 429, 502)
        any_object: JSON = {"type": "object"}
        answer = schema({"model": TEXT, "created_at": TEXT, "done": {"type": "boolean"}})
        replies = {
            "OllamaReply": answer,
            "OllamaModels": schema({"models": listed(any_object)}),
            "OllamaModel": schema({"details": any_object, "model_info": any_object, "capabilities": listed(TEXT)}),
            "OllamaError": schema({"error": TEXT}),
            "OllamaVersion": schema({"version": TEXT}),
            "OllamaVectors": schema({"model": TEXT, "embeddings": listed(listed({"type": "number"}))}),
            "OllamaVector": schema({"embedding": listed({"type": "number"})}),
        }
        endpoints = [
            Endpoint("POST", "/api/chat", self.chat, "An answer in a conversation.", "OllamaReply", OllamaChat, {}, generated, 200, NDJSON),
            Endpoint("POST", "/api/generate", self.generate, "An answer.", "OllamaReply", OllamaGenerate, {}, generated, 200, NDJSON),
            Endpoint("POST", "/api/embed", self.embed_texts, "Vectors of texts.", "OllamaVectors", OllamaEmbed, {}, (404, 429)),
            Endpoint("POST", "/api/embeddings", self.embed_prompt, "A vector.", "OllamaVector", OllamaEmbedding, {}, (404, 429)),
            Endpoint("POST", "/api/show", self.show, "One model.", "OllamaModel", OllamaName, {}, (404,)),
            Endpoint("GET", "/api/tags", self.tags, "The models.", "OllamaModels"),
            Endpoint("GET", "/api/ps", self.running, "The models that are loaded.", "OllamaModels"),
            Endpoint("GET", "/api/version", self.version, "The version of this API.", "OllamaVersion"),
        ]
        return EndpointGroup([replace(endpoint, error="OllamaError") for endpoint in endpoints], replies)

    async def chat(self, request: Request) -> Response:
        """POST /api/chat; without messages it only says that the model is there."""
        arrived, asked = time.monotonic(), await self.read(request, OllamaChat)
        if not asked.messages:
            return await self._loaded(asked, _message("", "", []))
        return await self._answer(request, asked, asked.chat(), _message, arrived)

    async def generate(self, request: Request) -> Response:
        """POST /api/generate; without a prompt it only says that the model is there."""
        arrived, asked = time.monotonic(), await self.read(request, OllamaGenerate)
        if not asked.prompt:
            return await self._loaded(asked, _response("", "", []))
        return await self._answer(request, asked, asked.asked(), _response, arrived)

    async def embed_texts(self, request: Request) -> Response:
        """POST /api/embed."""
        started, asked = time.monotonic(), await self.read(request, OllamaEmbed)
        texts = [asked.input] if isinstance(asked.input, str) else asked.input
        found, tokens = await self._vectors(request, asked.model, texts, asked.truncate is not False, asked.dimensions)
        spent = {"total_duration": _nanoseconds(time.monotonic() - started), "load_duration": 0, "prompt_eval_count": tokens}
        return json_response({"model": asked.model, "embeddings": found, **spent})

    async def embed_prompt(self, request: Request) -> Response:
        """POST /api/embeddings."""
        asked = await self.read(request, OllamaEmbedding)
        found, _ = await self._vectors(request, asked.model, [asked.prompt] if asked.prompt else [], True, None)
        return json_response({"embedding": found[0] if found else []})

    async def tags(self, request: Request) -> Response:
        """GET /api/tags."""
        served = list(self.service.served_models)
        if pool := self.service.pool:
            await pool.refresh()
            served += [pool.find(pooled.id) for pooled in pool.models.values() if pooled is not pool.first]
        return json_response({"models": [self._described(one) for one in served]})

    async def running(self, request: Request) -> Response:
        """GET /api/ps: what is in memory, the first model under each of its names; it stays until the server ends, or needs the room."""
        gone = stamp(time.time() + 10 * 365 * 86400)
        service, running = self.service, list[JSON]()
        for one in service.services:
            if one.in_memory and one.opened:
                size = ModelFacts.of(one.llama).nbytes
                gpu = size if getattr(one.opened.backend, "is_gpu", False) else 0
                more = {"expires_at": gone, "size": size, "size_vram": gpu, "context_length": one.llama.max_context}
                names = list(one.served_models) if one is service else [one.served_models.bare]
                running += [{**self._described(served), **more} for served in names]
        return json_response({"models": running})

    async def version(self, request: Request) -> Response:
        """GET /api/version."""
        return json_response({"version": VERSION, "townhall": __version__})

    async def show(self, request: Request) -> Response:
        """POST /api/show."""
        asked = await self.read(request, OllamaName)
        if not (name := asked.model or asked.name):
            raise APIError(400, "model: Field required", "model")
        served = self._found(name)
        with await self.service.hold(served.id) as service:
            llama, config = service.llama, getattr(service.llama, "config", None)
        system = served.persona.instructions
        family = getattr(config, "architecture", None) or "llama"
        info: JSON = {"general.architecture": family, f"{family}.context_length": llama.max_context}
        if config is not None:
            info |= {f"{family}.embedding_length": config.dim, f"{family}.block_count": config.n_layers}
        capabilities = ["completion", "tools", *(["embedding"] if served.bare and config is not None else [])]
        capabilities += ["thinking"] if "<think>" in (llama.tokenizer.chat_template or "") else []
        return json_response(
            {
                "modelfile": "",
                "parameters": "",
                "template": llama.tokenizer.chat_template or "",
                **({"system": system} if system else {}),
                "details": self._details(served),
                "model_info": info,
                "capabilities": capabilities,
                "modified_at": stamp(self.service.started),
            }
        )

    async def _answer(
        self, request: Request, asked: OllamaAsked, chat: Generate, said: Callable[[str, str, list[JSON]], JSON], arrived: float
    ) -> Response:
        with await self.service.hold(chat.model) as service:
            if isinstance(chat, ChatRequest):
                planned = await self.planned(service, request, chat)
            else:
                planned = await service.plan(lambda planner: planner.completion(_completion(chat)))
            events, cancel = self.queued(service, request, chat, planned, arrived)
        if asked.leaves:
            self._let_go(chat.model)
        writer = OllamaWriter(planned, asked.model, said, arrived)
        if chat.stream:
            content = _lines(events, writer, self.service.options.limits.keep_alive)
            headers = {**planned.headers, "Content-Type": NDJSON}
            return EventStream(content, headers, cancel, lambda error: _json_line({"error": error.message}))
        try:
            figures = await whole(request, events, lambda one: writer.text(one) if isinstance(one, TextEvent) else writer.end(one))
            return json_response(writer.last(figures, whole=True), headers=planned.headers)
        finally:
            cancel()

    async def _loaded(self, asked: OllamaAsked, said: JSON) -> Response:
        model = plain_name(asked.model)
        if not (self.service.pool and self.service.pool.knows(model)):
            self.service.served_models.choose(model, self.service.options.strict_model)
        if asked.leaves:
            self._let_go(model)
        else:
            with await self.service.hold(model):
                pass
        done = {"done": True, "done_reason": "unload" if asked.leaves else "load"}
        return json_response({"model": asked.model, "created_at": stamp(), **said, **done})

    def _let_go(self, model: str | None) -> None:
        """Have it leave the memory once it has answered; one that is pinned stays."""
        if (pool := self.service.pool) and (found := pool.of(model)) and not found.pinned:
            pool.let_go(found)

    async def _vectors(
        self, request: Request, model: str, texts: list[str], cut: bool, dimensions: int | None
    ) -> tuple[list[list[float]], int]:
        """(vectors, tokens read); APIError 404 for a model that is neither the table nor served."""
        if not texts:
            self._embedder(model)
            return [], 0
        if not all(texts):
            raise APIError(400, "input: none of the texts may be empty", "input")
        if self._embedder(model) == EMBEDDER:
            asked = EmbeddingsRequest(input=texts, dimensions=dimensions)
            table = embeddings(asked)
            return [one["embedding"] for one in table["data"]], table["usage"]["prompt_tokens"]
        found = await self.embed(request, plain_name(model), texts, cut)
        return shortened(np.stack(found.vectors), dimensions, model).tolist(), found.tokens

    def _embedder(self, model: str) -> str:
        """The table's name, or a served one: a persona's stands for its model's vectors."""
        if plain_name(model) == EMBEDDER:
            return EMBEDDER
        return self._found(model).id

    def _found(self, model: str) -> ServedModel:
        try:
            return self.service.find(plain_name(model))
        except APIError as error:
            raise APIError(error.status, f"model {model[:100]!r} not found", "model", error.code) from None

    def _described(self, served: ServedModel) -> JSON:
        name = served.id if ":" in served.id else served.id + TAG
        header, facts = self._header(served), ModelFacts.of(self.service.llama)
        size, digest = (header["bytes"], "") if header else (facts.nbytes, facts.fingerprint)
        about = {"size": size, "digest": digest, "details": self._details(served)}
        return {"name": name, "model": name, "modified_at": stamp(self.service.started), **about}

    def _header(self, served: ServedModel) -> JSON | None:
        """What the file of a model other than the first says."""
        found = self.service.pool.of(served.id) if self.service.pool else None
        return described(found.path) if found and found.path and found.service is not self.service else None

    def _details(self, served: ServedModel) -> JSON:
        config, header = getattr(self.service.llama, "config", None), self._header(served)
        family = (header["architecture"] if header else getattr(config, "architecture", None)) or "llama"
        count, kind = "", ""
        if header:
            count, kind = _parameters(header["parameters"]), (header["types"] or [""])[0]
        elif config is not None:
            from app.models.llama.checkpoint.checkpoint import parameters

            count = _parameters(parameters(config))
            kind = _quantization(getattr(self.service.opened, "path", None))
        details = {"parent_model": "", "format": "gguf", "family": family, "families": [family]}
        return {**details, "parameter_size": count, "quantization_level": kind}


def _completion(asked: Generate) -> CompletionRequest:
    assert isinstance(asked, CompletionRequest)
    return asked


def _parameters(count: int) -> str:
    return f"{count / 1e9:.1f}B" if count >= 1e9 else f"{count / 1e6:.0f}M"


def _quantization(path: Path | None) -> str:
    """The type in a file's name, as Ollama shows it."""
    parts = path.name.removesuffix(".gguf").rsplit(".", 1) if path else []
    return parts[1].upper() if len(parts) == 2 else ""
