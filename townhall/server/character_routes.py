"""/townhall/characters…: the user's characters and the shipped personas, their portraits and lorebooks.

What is made or changed here is served as a model id from then on, without a restart.
"""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from townhall.characters import bounded_json, card_files, card_prompt, character_catalog, character_folder, png_chunks
from townhall.characters.cards import Card
from townhall.characters.character_catalog import CatalogEntry
from townhall.characters.character_folder import StoredCharacter
from townhall.characters.errors import CardError
from townhall.characters.lore_state import LoreState
from townhall.characters.lorebook import Lorebook, LoreEntry, Role
from townhall.characters.lorebook_scan import LoreScan, LoreScanner, ScanSettings
from townhall.characters.macros import Macros
from townhall.errors import ContextError, PersonaError
from townhall.persona import load_persona, shipped_personas
from townhall.server.character_requests import CharacterCopy, CharacterCreation, CharacterFields, LorebookContent, LorebookTest
from townhall.server.endpoints import (
    COUNT,
    FILE,
    JSON,
    TEXT,
    Endpoint,
    EndpointGroup,
    file_response,
    listed,
    read_json,
    schema,
    uploaded,
)  # fmt: skip
from townhall.server.errors import APIError
from townhall.server.guard import json_response
from townhall.server.service import Service
from townhall.web.avatars import portrait as drawn_portrait

CARD = "image/png, application/json"  # as what a card is exported
PICTURES = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp", "gif": "image/gif"}
T = TypeVar("T")


SEARCH = {"search": {**TEXT, "description": "Words that must stand in the name, tags, creator or texts."}}
TEXT_FIELDS = {name: TEXT for name in CharacterFields.model_fields if name not in ("tags", "alternate_greetings")}
REPLIES: dict[str, JSON] = {
    "CharacterEntry": schema(
        {"id": TEXT, "kind": {"enum": ["character", "persona"]}, "name": TEXT, "description": TEXT, "creator": TEXT, "tags": listed(TEXT)}
        | {"version": COUNT, "greetings": COUNT, "lorebook_entries": COUNT, "served": {"type": "boolean"}, "fault": TEXT}
    ),
    "Characters": schema({"characters": listed("CharacterEntry")}),
    "Character": schema(
        {"id": TEXT, "kind": TEXT, "editable": {"type": "boolean"}, "served": {"type": "boolean"}, "not_served": TEXT, "version": COUNT}
        | {"greetings": listed(TEXT), "lorebook_entries": COUNT, "notes": listed(TEXT)}
        | {"fields": schema(TEXT_FIELDS | {"tags": listed(TEXT), "alternate_greetings": listed(TEXT)})}
    ),
    "Lorebook": schema({"book": {"anyOf": [{"type": "object"}, {"type": "null"}]}, "entries": COUNT}),
    "FiredLoreEntry": schema({"uid": TEXT, "title": TEXT, "why": TEXT, "text": TEXT, "tokens": COUNT, "place": TEXT, "keys": listed(TEXT)}),
    "SilentLoreEntry": schema({"uid": TEXT, "title": TEXT, "why": TEXT}),
    "LorebookScan": schema(
        {"fired": listed("FiredLoreEntry"), "passed_over": listed("SilentLoreEntry"), "notes": listed(TEXT), "tokens": COUNT}
    ),
    "Deleted": schema({"deleted": TEXT}),
}


class CharacterRoutes:
    """One method for each endpoint."""

    def __init__(self, service: Service):
        self._service, self._limits = service, service.options.limits

    def group(self) -> EndpointGroup:
        """The endpoints."""
        base, one = "/townhall/characters", "/townhall/characters/{id}"
        form: dict[str, JSON] = {"format": {"enum": ["json", "png"], "default": "json"}, "v3": {"type": "boolean", "default": False}}
        replaced: dict[str, JSON] = {"name": {**TEXT, "maxLength": 200}, "replace": {"type": "boolean", "default": False}}
        changes, made = (404, 405), (405, 409)
        endpoints = [
            Endpoint("GET", base, self.entries, "The characters and personas, searched.", "Characters", query=SEARCH),
            Endpoint("POST", base, self.create, "Make a character.", "Character", CharacterCreation, errors=made, status=201),
            Endpoint("POST", f"{base}/import", self.take_in, "Import a card: JSON, PNG or CHARX.", "Character", FILE, replaced, made, 201),
            Endpoint("GET", one, self.show, "A character's fields.", "Character", errors=changes),
            Endpoint("PATCH", one, self.edit, "Change fields of a character.", "Character", CharacterFields, errors=changes),
            Endpoint("DELETE", one, self.delete, "Delete a character of the user's.", "Deleted", errors=changes),
            Endpoint("POST", f"{one}/duplicate", self.copy, "Copy it.", "Character", CharacterCopy, errors=(*changes, 409), status=201),
            Endpoint("GET", f"{one}/portrait", self.portrait, "Its picture.", "image/*", errors=changes),
            Endpoint("PUT", f"{one}/portrait", self.set_portrait, "Give it a picture.", "Character", FILE, errors=changes),
            Endpoint("GET", f"{one}/export", self.export, "Its card as a file.", CARD, query=form, errors=changes),
            Endpoint("GET", f"{one}/lorebook", self.lorebook, "Its lorebook as the card has it.", "Lorebook", errors=changes),
            Endpoint("PUT", f"{one}/lorebook", self.set_lorebook, "Write its lorebook.", "Lorebook", LorebookContent, errors=changes),
            Endpoint("POST", f"{one}/lorebook/test", self.test_lorebook, "What fires.", "LorebookScan", LorebookTest, errors=changes),
        ]
        return EndpointGroup(endpoints, REPLIES)

    async def entries(self, request: Request) -> Response:
        """GET /townhall/characters."""
        entries = await asyncio.to_thread(character_catalog.list_entries, request.query_params.get("search", "")[:200])
        served = self._served()
        return json_response({"characters": [_listed(entry, entry.id in served) for entry in entries]})

    async def create(self, request: Request) -> Response:
        """POST /townhall/characters."""
        asked = await read_json(request, CharacterCreation, self._limits, bounded_json.MAX_BYTES)

        def make() -> StoredCharacter:
            where = f"character {asked.name}"
            id = character_catalog.new_id(asked.name, where)
            _refuse_taken(id)
            fields = {} if asked.fields is None else asked.fields.model_dump(exclude_none=True)
            card = character_catalog.edited(character_catalog.blank_card(asked.name, where), fields, where, id)
            return character_folder.add(card, b"", id)

        return await self._kept(make, 201)

    async def take_in(self, request: Request) -> Response:
        """POST /townhall/characters/import."""
        wanted, replace = request.query_params.get("name", "")[:200], _flag(request, "replace")
        notes: list[str] = []
        async with uploaded(request, self._limits, card_files.MAX_PICTURE) as path:

            def read() -> StoredCharacter:
                found = card_files.read(path, "the card")
                id = character_catalog.new_id(wanted or found.card.name, "the card")
                card_prompt.card_prompt(found.card, "the card", fallback=id)
                card_prompt.lorebook(found.card, "the card")
                if not replace:
                    _refuse_taken(id)
                notes.extend(found.notes)
                return character_folder.add(found.card, found.portrait, id, replace, found.documents)

            return await self._kept(read, 201, notes)

    async def show(self, request: Request) -> Response:
        """GET /townhall/characters/{id}."""
        id = request.path_params["id"].lower()
        return json_response(await asyncio.to_thread(self._described, id))

    async def edit(self, request: Request) -> Response:
        """PATCH /townhall/characters/{id}."""
        stored = await asyncio.to_thread(_own, request.path_params["id"])
        asked = await read_json(request, CharacterFields, self._limits, bounded_json.MAX_BYTES)

        def change() -> StoredCharacter:
            return _change(stored, asked.model_dump(exclude_none=True))

        return await self._kept(change)

    async def delete(self, request: Request) -> Response:
        """DELETE /townhall/characters/{id}."""
        stored = await asyncio.to_thread(_own, request.path_params["id"])
        models = self._service.served_models  # 503 while the model is loaded: it might begin to be served then
        await asyncio.to_thread(character_folder.remove, stored)
        await self._service.plan(lambda planner: models.withdraw(stored.id))
        return json_response({"deleted": stored.id})

    async def copy(self, request: Request) -> Response:
        """POST /townhall/characters/{id}/duplicate."""
        id = await asyncio.to_thread(_known, request.path_params["id"])
        asked = await read_json(request, CharacterCopy, self._limits)

        def duplicate() -> StoredCharacter:
            if asked.name:
                _refuse_taken(character_folder.id_of(asked.name))
            return character_catalog.duplicate(id, asked.name)

        return await self._kept(duplicate, 201)

    async def portrait(self, request: Request) -> Response:
        """GET /townhall/characters/{id}/portrait: of a character without one, and of any other served model, a drawn one."""
        id = request.path_params["id"]
        try:
            picture = b"" if id in shipped_personas() else await asyncio.to_thread(lambda: character_folder.find(_known(id)).portrait())
        except APIError:
            if id not in {served_model.id for served_model in self._service.served_models}:
                raise
            picture = b""
        if suffix := png_chunks.picture_suffix(picture):
            return file_response(picture, PICTURES[suffix])
        return file_response(drawn_portrait(id).encode(errors="replace"), "image/svg+xml")

    async def set_portrait(self, request: Request) -> Response:
        """PUT /townhall/characters/{id}/portrait; an empty body takes it away."""
        stored = await asyncio.to_thread(_own, request.path_params["id"])
        async with uploaded(request, self._limits, card_files.MAX_PICTURE) as path:
            await asyncio.to_thread(lambda: character_folder.set_portrait(stored, card_files.without_card(path.read_bytes())))
        return json_response(await asyncio.to_thread(self._described, stored.id))

    async def export(self, request: Request) -> Response:
        """GET /townhall/characters/{id}/export."""
        id = await asyncio.to_thread(_known, request.path_params["id"])
        form, v3 = request.query_params.get("format", "json"), _flag(request, "v3")
        if form not in ("json", "png"):
            raise APIError(400, f"format {form[:20]!r} is not known; ask for json or png", "format")

        def content() -> bytes:
            card, portrait = _card(id), b"" if id in shipped_personas() else character_folder.find(id).portrait()
            return card_files.as_png(card, portrait) if form == "png" else card.as_v3() if v3 else card.source

        kind = "image/png" if form == "png" else "application/json"
        plain = id if id.isascii() else "character"
        return file_response(await asyncio.to_thread(content), kind, f"{plain}.{form}")

    async def lorebook(self, request: Request) -> Response:
        """GET /townhall/characters/{id}/lorebook."""
        id = await asyncio.to_thread(_known, request.path_params["id"])
        return json_response(await asyncio.to_thread(lambda: _book(_card(id))))

    async def set_lorebook(self, request: Request) -> Response:
        """PUT /townhall/characters/{id}/lorebook."""
        stored = await asyncio.to_thread(_own, request.path_params["id"])
        asked = await read_json(request, LorebookContent, self._limits, bounded_json.MAX_BYTES)

        def write() -> JSON:
            if asked.book is not None:
                Lorebook.from_values(asked.book, stored.id, "the lorebook")
            return _book(_change(stored, {"character_book": asked.book}).card())

        book = await asyncio.to_thread(write)
        await self._serve(stored.id)
        return json_response(book)

    async def test_lorebook(self, request: Request) -> Response:
        """POST /townhall/characters/{id}/lorebook/test."""
        id = await asyncio.to_thread(_known, request.path_params["id"])
        asked = await read_json(request, LorebookTest, self._limits, bounded_json.MAX_BYTES)
        messages: list[tuple[Role, str]] = [(message.role, message.content) for message in asked.messages]
        messages += [("user", asked.text)] if asked.text else []

        def scan() -> LoreScan | None:
            card = _card(id)
            values = card.book if asked.book is None else asked.book
            if not values:
                return None
            prompt = card_prompt.card_prompt(card, f"character {id}", fallback=id)
            scanner = LoreScanner([Lorebook.from_values(values, id, "the lorebook")], Macros(prompt.name, prompt.user), ScanSettings())
            return scanner.scan(messages, LoreState(), self._count, random.Random(asked.seed))

        found = await asyncio.to_thread(scan)
        return json_response(_scanned(found) if found else {"fired": [], "passed_over": [], "notes": [], "tokens": 0})

    def _count(self, text: str) -> int:
        """Tokens of the loaded model; while it is being loaded, about as many."""
        opened = self._service.opened
        return len(opened.llama.tokenizer.encode(text)) if opened else -(-len(text) // 4)

    def _served(self) -> set[str]:
        models = self._service.served_models if self._service.opened and self._service.ready else ()
        return {model.id for model in models}

    async def _kept(self, make: Callable[[], StoredCharacter], status: int = 200, notes: list[str] | None = None) -> Response:
        """Have a character written, serve it, and say what it is now."""
        self._service.served_models  # noqa: B018  (503 while the model is loaded: which characters it serves is being settled)
        stored = await asyncio.to_thread(make)
        not_served = await self._serve(stored.id)
        described = await asyncio.to_thread(self._described, stored.id)
        return json_response(described | {"not_served": not_served, "notes": [*(notes or []), *described["notes"]]}, status)

    async def _serve(self, id: str) -> str:
        """Serve a character as it is now; why it is not served, or ""."""
        models, options = self._service.served_models, self._service.options
        capacity = self._service.llama.max_context

        def put(planner: Any) -> str:
            try:
                models.put(id, capacity, options.max_tokens)
            except (PersonaError, ContextError) as error:
                return str(error)
            return ""

        return await self._service.plan(put)

    def _described(self, id: str) -> JSON:
        card, own = _card(_known(id)), id not in shipped_personas()
        prompt = card_prompt.card_prompt(card, f"character {id}", fallback=id)
        return {
            "id": id,
            "kind": "character" if own else "persona",
            "editable": own,
            "served": id in self._served(),
            "not_served": "",
            "version": card.version if own else 0,
            "fields": character_catalog.known_fields(card),
            "greetings": list(prompt.greetings),
            "lorebook_entries": character_catalog.lorebook_entries(card),
            "notes": character_catalog.remarks(card),
        }


def _listed(entry: CatalogEntry, served: bool) -> JSON:
    names = ("id", "kind", "name", "description", "creator", "version", "greetings", "lorebook_entries", "fault")
    description = entry.description
    with suppress(CardError):  # what grows too long stays as it was written
        description = Macros(entry.name).expand(description)
    return {name: getattr(entry, name) for name in names} | {"description": description, "tags": list(entry.tags), "served": served}


def _known(id: str) -> str:
    """APIError 404 where there is no such character or persona."""
    if (id := id.lower()) not in shipped_personas() and id not in character_folder.names():
        raise APIError(404, f"there is no character {id[:100]!r}; /townhall/characters lists them", code="character_not_found")
    return id


def _own(id: str) -> StoredCharacter:
    """A character of the user's; APIError 400 for a persona that ships with Townhall."""
    if (id := _known(id)) in shipped_personas():
        raise APIError(400, f"{id} ships with Townhall and stays as it is; duplicate it and change the copy", code="read_only")
    return character_folder.find(id)


def _refuse_taken(id: str) -> None:
    if id in character_folder.names():
        raise APIError(409, f"there is a character {id} already; pass another name, or replace it", code="character_exists")


def _card(id: str) -> Card:
    """A character's card, or a shipped persona as one."""
    return character_catalog.persona_card(load_persona(id), id) if id in shipped_personas() else character_folder.find(id).card()


def _change(stored: StoredCharacter, fields: JSON) -> StoredCharacter:
    card = stored.card()
    changed = character_catalog.edited(card, fields, f"character {stored.id}", stored.id)
    if changed is not card:
        character_folder.update(stored, changed)
    return stored


def _book(card: Card) -> JSON:
    return {"book": card.book, "entries": character_catalog.lorebook_entries(card)}


def _flag(request: Request, name: str) -> bool:
    return request.query_params.get(name, "").lower() in ("1", "true", "yes")


def _place(entry: LoreEntry) -> str:
    depth = f" {entry.place.depth}" if entry.place.spot.name == "AT_DEPTH" else ""
    return entry.place.spot.name.lower().replace("_", " ") + depth


def _scanned(scan: LoreScan) -> JSON:
    fired = [
        {"uid": one.entry.uid, "title": one.entry.title, "why": one.why, "text": one.text, "tokens": one.tokens}
        | {"place": _place(one.entry), "keys": list(one.entry.keys)}
        for one in scan.fired
    ]
    passed_over = [{"uid": entry.uid, "title": entry.title, "why": why} for entry, why in scan.passed_over]
    return {"fired": fired, "passed_over": passed_over, "notes": list(scan.notes), "tokens": scan.tokens}
