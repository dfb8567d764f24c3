"""/townhall/chats…, /townhall/search and /townhall/events: chats for clients that keep none themselves."""

import json
from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from townhall.chats import chat_view
from townhall.chats.chat_enrichment import enriched
from townhall.chats.chat_events import EventHub
from townhall.chats.chat_folder import ChatFolder, ChatQuery
from townhall.chats.chat_requests import (
    MOST_ALTERNATIVES,
    AlternativeRequest,
    AskedQuestion,
    BranchRequest,
    ChatChanges,
    ChosenMessage,
    CountedText,
    Draft,
    MessageEdit,
    MessageRating,
    NewChat,
    NewMessage,
    ReplyRequest,
    StopRequest,
)  # fmt: skip
from townhall.chats.chat_schemas import COMMON_ERRORS, REPLIES
from townhall.chats.served_chat import ServedChat
from townhall.logbook import log_reader
from townhall.server.endpoints import EVENTS, FILE, JSON, TEXT, Endpoint, EndpointGroup, Handler, file_response, read_json
from townhall.server.errors import APIError
from townhall.server.guard import json_response
from townhall.server.service import Service

CHATS, CHAT = "/townhall/chats", "/townhall/chats/{id}"
MESSAGE = CHAT + "/messages/{message}"
MOST_LISTED, MOST_MESSAGES, MOST_DRAFT = 500, 2000, 4 << 20
QUIET = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # proxies that hold a stream back would defeat it
LIMIT: JSON = {"type": "integer", "minimum": 1}
COUNT: JSON = {"type": "integer", "minimum": 0}
B = TypeVar("B", bound=BaseModel)


class ChatRoutes:
    """Without a folder for chats, every path answers that there are none."""

    def __init__(self, service: Service):
        self._service = service
        self._folder = ChatFolder(service.options.chats, service) if service.options.chats else None
        if self._folder:
            service.at_end.append(self._folder.close)

    def group(self) -> EndpointGroup:
        """All of it, declared."""
        pages = {"limit": LIMIT, "offset": COUNT}
        listing = pages | {"q": TEXT, "folder": TEXT, "tag": TEXT, "model": TEXT}
        return EndpointGroup(
            [
                _get(CHATS, self.listing, "The chats, the one changed last first.", "Chats", listing),
                _post(CHATS, self.begin, "A new chat.", "OpenChat", NewChat, 201),
                _get(
                    "/townhall/search",
                    self.search,
                    "Messages that hold all the words.",
                    "Hits",
                    pages | {"q": TEXT},
                ),
                _get("/townhall/events", self.list_events, "What comes to the list, changes or goes.", EVENTS, {"after": TEXT}),
                _get(CHAT, self.open, "A chat with its last messages.", "OpenChat", {"limit": LIMIT}),
                Endpoint("PATCH", CHAT, self.change, "Title, folder, tags, settings …", "ChatDetails", ChatChanges, errors=COMMON_ERRORS),
                Endpoint("DELETE", CHAT, self.delete, "Delete a chat.", "DeletedChat", errors=COMMON_ERRORS),
                _get(CHAT + "/export", self.export, "A chat as a file.", FILE, {"form": {"enum": ["md", "json"]}}),
                _get(CHAT + "/events", self.events, "What happens to a chat, as it happens.", EVENTS, {"after": TEXT}),
                _get(CHAT + "/tree", self.tree, "All messages and how they follow each other.", "ChatTree"),
                _get(CHAT + "/draft", self.draft, "What waits in the composer.", "KeptDraft"),
                Endpoint("PUT", CHAT + "/draft", self.keep_draft, "Keep what waits in the composer.", "Saved", Draft, errors=COMMON_ERRORS),
                _get(CHAT + "/messages", self.messages, "A stretch of the chosen path.", "Messages", {"from": COUNT, "limit": LIMIT}),
                _post(CHAT + "/messages", self.send, "Say something, and have it answered.", "Change", NewMessage, 202),
                _get(MESSAGE, self.message, "A message with its whole receipt.", "Message"),
                Endpoint("PATCH", MESSAGE, self.edit, "Edit a message of either side.", "Change", MessageEdit, errors=COMMON_ERRORS),
                Endpoint(
                    "DELETE", MESSAGE, self.delete_message, "Take a message back.", "Change", query={"below": TEXT}, errors=COMMON_ERRORS
                ),
                Endpoint("PUT", MESSAGE + "/rating", self.rate, "Rate a reply.", "Change", MessageRating, errors=COMMON_ERRORS),
                _get(MESSAGE + "/logprobs", self.logprobs, "How likely each token was, and what else was.", "Logprobs", {"top": COUNT}),
                _post(MESSAGE + "/alternative", self.alternative, "Go on from another token.", "Change", AlternativeRequest, 202),
                _post(CHAT + "/reply", self.reply, "Another reply, as a swipe.", "Change", ReplyRequest, 202),
                _post(CHAT + "/continue", self.carry_on, "Carry on the last reply.", "Change", ReplyRequest, 202),
                _post(CHAT + "/impersonate", self.impersonate, "Have the user's next line written.", "Change", ReplyRequest, 202),
                _post(CHAT + "/stop", self.stop, "End the reply that is being written.", "Change", StopRequest),
                _post(CHAT + "/choose", self.choose, "Lead the path through a message.", "Change", ChosenMessage),
                _post(CHAT + "/branch", self.branch, "Go on from a message, here or in a new chat.", "Change", BranchRequest),
                _post(CHAT + "/enrich", self.enrich, "A question that can be understood alone.", "EnrichedQuestion", AskedQuestion),
                _post(CHAT + "/tokens", self.tokens, "Tokens of a text and of the prompt it would make.", "TokenCounts", CountedText),
            ],
            REPLIES,
        )

    async def listing(self, request: Request) -> Response:
        """GET /townhall/chats."""
        asked, folder = request.query_params, self._chats()
        query = ChatQuery(
            _number(request, "limit", 50, 1, MOST_LISTED),
            _number(request, "offset", 0),
            asked.get("q", "")[:1000],
            asked.get("folder"),
            asked.get("tag", ""),
            asked.get("model", ""),
        )
        return json_response(await folder.listing(query))

    async def search(self, request: Request) -> Response:
        """GET /townhall/search."""
        limit, offset = _number(request, "limit", 50, 1, MOST_LISTED), _number(request, "offset", 0)
        return json_response(await self._chats().search(request.query_params.get("q", "")[:1000], limit, offset))

    async def begin(self, request: Request) -> Response:
        """POST /townhall/chats."""
        asked, folder = await self._read(request, NewChat), self._chats()
        served = self._service.served_models
        model = asked.model if asked.model is not None else next(iter(served)).id
        greetings = (persona := self._service.find(model).persona).greeting and (persona.greeting, *persona.alternate_greetings)
        if asked.greeting and asked.greeting >= len(greetings or ()):
            raise APIError(400, f"greeting {asked.greeting} is not there: {persona.name} has {len(greetings or ())}, from 0 on", "greeting")
        chat = folder.begin(model)
        if greetings and not ("greeting" in asked.model_fields_set and asked.greeting is None):
            chat.greet(greetings, asked.greeting or 0)
        given = asked.model_copy()
        given.model_fields_set.difference_update({"model", "greeting"})
        if given.given() or asked.title:
            await chat.set(given)
        return json_response(await self._opened(chat, 100), 201)

    async def open(self, request: Request) -> Response:
        """GET /townhall/chats/{id}."""
        return json_response(await self._opened(await self._chat(request), _number(request, "limit", 100, 1, MOST_MESSAGES)))

    async def change(self, request: Request) -> Response:
        """PATCH /townhall/chats/{id}."""
        asked = await self._read(request, ChatChanges)
        return json_response(await (await self._chat(request)).set(asked))

    async def delete(self, request: Request) -> Response:
        """DELETE /townhall/chats/{id}."""
        chat = await self._chat(request)
        await self._chats().delete(chat)
        return json_response({"deleted": chat.id})

    async def export(self, request: Request) -> Response:
        """GET …/export."""
        chat, form = await self._chat(request), request.query_params.get("form", "md")
        if form not in ("md", "json"):
            raise APIError(400, f"form takes md or json, not {form[:40]!r}", "form")
        log = chat.file.current()
        whole = log_reader.as_json(log) | {"path": log.path.name}
        text = log_reader.as_markdown(log) if form == "md" else json.dumps(whole, ensure_ascii=False, indent=2, default=str) + "\n"
        return file_response(text.encode(errors="replace"), FILE, f"{chat.id}.{form}")

    async def events(self, request: Request) -> Response:
        """GET …/events."""
        return self._stream(request, (await self._chat(request)).hub)

    async def list_events(self, request: Request) -> Response:
        """GET /townhall/events."""
        return self._stream(request, self._chats().hub)

    async def tree(self, request: Request) -> Response:
        """GET …/tree."""
        tree = (await self._chat(request)).tree
        return json_response({"nodes": chat_view.nodes(tree), "tip": max(tree.end, 0)})

    async def draft(self, request: Request) -> Response:
        """GET …/draft."""
        return json_response({"text": await self._chats().draft((await self._chat(request)).id)})

    async def keep_draft(self, request: Request) -> Response:
        """PUT …/draft."""
        asked = await read_json(request, Draft, self._service.options.limits, MOST_DRAFT)
        chat = await self._chat(request)
        if asked.text:
            await chat.keep()
        await self._chats().keep_draft(chat.id, asked.text)
        chat.hub.publish("draft", {"text": asked.text, "tab": asked.tab})
        return json_response({"saved": True})

    async def messages(self, request: Request) -> Response:
        """GET …/messages."""
        chat, start, limit = await self._chat(request), _number(request, "from", 0), _number(request, "limit", 100, 1, MOST_MESSAGES)
        path = chat.tree.path()
        shown = chat_view.messages(chat.tree, path, start, limit)
        return json_response({"from": start, "total": len(path), "messages": shown, "event": chat.hub.last})

    async def message(self, request: Request) -> Response:
        """GET …/messages/{message}."""
        return json_response((await self._chat(request)).message(_message_id(request), whole=True))

    async def send(self, request: Request) -> Response:
        """POST …/messages."""
        asked = await self._read(request, NewMessage)
        change, replies = await (await self._chat(request)).send(asked)
        return json_response(change, 202 if replies else 200)

    async def edit(self, request: Request) -> Response:
        """PATCH …/messages/{message}."""
        asked = await self._read(request, MessageEdit)
        change, replies = await (await self._chat(request)).edit(asked, _message_id(request))
        return json_response(change, 202 if replies else 200)

    async def delete_message(self, request: Request) -> Response:
        """DELETE …/messages/{message}."""
        below = request.query_params.get("below", "false").lower() in ("true", "1")
        return json_response(await (await self._chat(request)).delete_message(_message_id(request), below))

    async def rate(self, request: Request) -> Response:
        """PUT …/messages/{message}/rating."""
        asked = await self._read(request, MessageRating)
        return json_response(await (await self._chat(request)).rate(_message_id(request), asked.rating))

    async def logprobs(self, request: Request) -> Response:
        """GET …/messages/{message}/logprobs."""
        top = _number(request, "top", 5, 0, MOST_ALTERNATIVES)
        return json_response(await (await self._chat(request)).logprobs(_message_id(request), top))

    async def alternative(self, request: Request) -> Response:
        """POST …/messages/{message}/alternative."""
        asked, id = await self._read(request, AlternativeRequest), _message_id(request)
        return json_response(await (await self._chat(request)).alternative(asked, id, asked.position, asked.token), 202)

    async def reply(self, request: Request) -> Response:
        """POST …/reply."""
        asked = await self._read(request, ReplyRequest)
        return json_response(await (await self._chat(request)).reply(asked, asked.message), 202)

    async def carry_on(self, request: Request) -> Response:
        """POST …/continue."""
        asked = await self._read(request, ReplyRequest)
        return json_response(await (await self._chat(request)).carry_on(asked, asked.message), 202)

    async def impersonate(self, request: Request) -> Response:
        """POST …/impersonate."""
        asked = await self._read(request, ReplyRequest)
        return json_response(await (await self._chat(request)).impersonate(asked), 202)

    async def stop(self, request: Request) -> Response:
        """POST …/stop."""
        return json_response(await (await self._chat(request)).stop())

    async def choose(self, request: Request) -> Response:
        """POST …/choose."""
        asked = await self._read(request, ChosenMessage)
        return json_response(await (await self._chat(request)).choose(asked.message))

    async def branch(self, request: Request) -> Response:
        """POST …/branch."""
        asked, chat = await self._read(request, BranchRequest), await self._chat(request)
        if not asked.chat:
            return json_response(await chat.branch(asked.message))
        chat.node(asked.message)
        return json_response(await self._opened(await self._chats().copy(chat, asked.message, asked.title), 100), 201)

    async def enrich(self, request: Request) -> Response:
        """POST …/enrich."""
        asked = await self._read(request, AskedQuestion)
        return json_response(await enriched(await self._chat(request), self._service, asked.text, request.is_disconnected))

    async def tokens(self, request: Request) -> Response:
        """POST …/tokens."""
        asked = await self._read(request, CountedText)
        return json_response(await (await self._chat(request)).tokens(asked.text))

    def _chats(self) -> ChatFolder:
        if self._folder is None:
            raise APIError(404, "this server keeps no chats; start it with --chats", code="no_chats")
        self._service.served_models  # noqa: B018  (503 while loading)
        return self._folder

    async def _chat(self, request: Request) -> ServedChat:
        return await self._chats().find(request.path_params["id"])

    async def _opened(self, chat: ServedChat, limit: int) -> JSON:
        return {**chat.view(limit), "draft": await self._chats().draft(chat.id)}

    async def _read(self, request: Request, kind: type[B]) -> B:
        self._chats()
        return await read_json(request, kind, self._service.options.limits)

    def _stream(self, request: Request, hub: EventHub) -> Response:
        after = request.headers.get("last-event-id") or request.query_params.get("after")
        frames = hub.watch(after, self._service.options.limits.keep_alive, lambda: self._service.draining)
        return StreamingResponse(frames, media_type=EVENTS, headers=QUIET)


def _get(path: str, handler: Handler, summary: str, reply: str, query: Mapping[str, JSON] | None = None) -> Endpoint:
    return Endpoint("GET", path, handler, summary, reply, query=query or {}, errors=COMMON_ERRORS)


def _post(path: str, handler: Handler, summary: str, reply: str, body: type[BaseModel], status: int = 200) -> Endpoint:
    return Endpoint("POST", path, handler, summary, reply, body, errors=COMMON_ERRORS, status=status)


def _number(request: Request, name: str, default: int, least: int = 0, most: int = 1 << 31) -> int:
    """A parameter of the query. APIError 400 for what is none, or out of range."""
    given = request.query_params.get(name)
    if given is None:
        return default
    if not given.isascii() or not given.isdecimal() or len(given) > 10 or not least <= int(given) <= most:
        raise APIError(400, f"{name} takes a whole number from {least} to {most}, not {given[:40]!r}", name)
    return int(given)


def _message_id(request: Request) -> int:
    given = request.path_params["message"]
    if not given.isascii() or not given.isdecimal() or len(given) > 15:
        raise APIError(404, f"there is no message {given[:40]!r} in this chat", "message", "message_not_found")
    return int(given)
