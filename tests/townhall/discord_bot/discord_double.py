"""Discord as far as a bot's wire goes, on loopback: a gateway over a WebSocket, and REST. Written after Discord's documentation.

It keeps sessions, numbers events, sends what was missed after a resume, knows messages by their nonce, and can be made to fail.
"""

import asyncio
import itertools
import json
import re
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

TOKEN = "MTk4NjIyNDgzNDcx.Cl2FMQ.ZnCjm1XVW7vRze4b7Cq4se7kKWs"
DISPATCH, HEARTBEAT, IDENTIFY, RESUME, RECONNECT, INVALID, HELLO, ACK = 0, 1, 2, 6, 7, 9, 10, 11
MESSAGE_CONTENT = 1 << 15
PERMISSIONS = str((1 << 10) | (1 << 11) | (1 << 16) | (1 << 38))
APPLICATION, BOT, GUILD, GENERAL, DIRECT, ANNA = "900", "901", "500", "501", "502", "301"
JSON = dict[str, Any]
BODY = web.RequestKey("body", dict)  # read once


@dataclass
class Session:
    """What a client has been sent, by number."""

    id: str
    intents: int
    events: list[JSON] = field(default_factory=list)
    socket: web.WebSocketResponse | None = None
    deflate: Any = None

    async def send(self, frame: JSON) -> None:
        """Compressed where the client asked for that."""
        if self.socket is None or self.socket.closed:
            return
        text = json.dumps(frame)
        with suppress(ConnectionError):  # it was cut, and does not know it yet
            if self.deflate:
                await self.socket.send_bytes(self.deflate.compress(text.encode()) + self.deflate.flush(zlib.Z_SYNC_FLUSH))
            else:
                await self.socket.send_str(text)


@dataclass
class Fault:
    """What happens to a request instead: a status, or its receipt is lost after it was done."""

    method: str
    path: str
    status: int = 0
    retry_after: float = 0.01
    via: bool = True


class DiscordDouble:
    """`start` and `stop` on the loop that it runs on; `base` and `gateway` are its addresses."""

    def __init__(self, heartbeat: int = 41_250, intents: int = ~0):
        """`heartbeat`: milliseconds; `intents`: those that are switched on for the bot."""
        self._heartbeat, self._intents = heartbeat, intents
        self._ids = itertools.count(1_000_000_000_000_000_000)
        self.messages: dict[str, dict[str, JSON]] = {GENERAL: {}, DIRECT: {}}
        self.requests: list[tuple[str, str, Any]] = []
        self.faults: list[Fault] = []
        self.received: list[JSON] = []  # frames of the gateway
        self.sessions: dict[str, Session] = {}
        self.session: Session | None = None
        self.acknowledges = True
        self.commands: list[JSON] = []
        self._nonces: dict[tuple[str, str], JSON] = {}
        self._changed = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def start(self) -> "DiscordDouble":
        application = web.Application(middlewares=[self._checked])
        application.router.add_get("/gateway/", self._gateway)
        application.router.add_route("*", "/api/v10{path:.*}", self._rest)
        self._runner = web.AppRunner(application, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        return self

    async def stop(self) -> None:
        await self.cut()
        if self._runner:
            await self._runner.cleanup()

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/v10"

    @property
    def gateway(self) -> str:
        return f"ws://127.0.0.1:{self.port}/gateway/"

    async def until(self, condition: Callable[[], Any], seconds: float = 60.0) -> None:
        """Wait for something that comes about by what the bot does."""
        async with asyncio.timeout(seconds):
            while not condition():
                changed = self._changed
                await changed.wait()

    def said(self, channel: str = GENERAL) -> list[str]:
        """What the bot's messages there read now."""
        return [message["content"] for message in self.messages[channel].values() if message["author"]["id"] == BOT]

    async def say(self, text: str, channel: str = GENERAL, silent: bool = False, mention: bool = True) -> JSON:
        """A person says something; `silent`: no event tells of it."""
        message = self._message(
            channel, text, {"id": ANNA, "username": "anna", "global_name": "Anna", "discriminator": "0", "avatar": None}
        )
        message["mentions"] = [self._me] if mention and channel == GENERAL else []
        message["content"] = f"<@{BOT}> {text}" if message["mentions"] else text
        if not silent:
            await self.dispatch("MESSAGE_CREATE", message)
        return message

    async def dispatch(self, name: str, data: JSON) -> None:
        """To the session, whether its client is there or not."""
        assert self.session
        frame = {"op": DISPATCH, "t": name, "s": len(self.session.events) + 1, "d": data}
        self.session.events.append(frame)
        await self.session.send(frame)

    async def again(self, number: int) -> None:
        """An event that was sent before."""
        assert self.session
        await self.session.send(self.session.events[number - 1])

    async def cut(self) -> None:
        """The connection breaks, without a word."""
        if self.session and self.session.socket and not self.session.socket.closed:
            transport = self.session.socket._req.transport  # type: ignore[union-attr]
            if transport:
                transport.abort()

    async def order(self, op: int, data: Any = None) -> None:
        """RECONNECT, INVALID …"""
        assert self.session
        await self.session.send({"op": op, "d": data, "s": None, "t": None})

    def forget(self) -> None:
        """Sessions cannot be resumed any more."""
        self.sessions.clear()

    @property
    def _me(self) -> JSON:
        return {"id": BOT, "username": "stacy", "discriminator": "0", "avatar": None, "bot": True, "global_name": None}

    def _notice(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _message(self, channel: str, text: str, author: JSON) -> JSON:
        message = {
            "id": str(next(self._ids)),
            "channel_id": channel,
            "author": author,
            "content": text,
            "timestamp": "2026-11-30T00:00:00+00:00",
            "edited_timestamp": None,
            "tts": False,
            "mention_everyone": False,
            "mentions": [],
            "mention_roles": [],
            "attachments": [],
            "embeds": [],
            "pinned": False,
            "type": 0,
            "flags": 0,
            "components": [],
        }
        if channel == GENERAL:
            message |= {"guild_id": GUILD, "member": _member()}
        self.messages[channel][message["id"]] = message
        return message

    @web.middleware
    async def _checked(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Who asks, and whether it is to go wrong."""
        if request.path.startswith("/gateway"):
            return await handler(request)
        path = request.path.removeprefix("/api/v10")
        request[BODY] = await request.json() if request.can_read_body else {}
        self.requests.append((request.method, path, request[BODY]))
        if request.headers.get("Authorization") != f"Bot {TOKEN}":
            return _json({"message": "401: Unauthorized", "code": 0}, status=401)
        fault = next((one for one in self.faults if one.method == request.method and re.fullmatch(one.path, path)), None)
        if fault:
            self.faults.remove(fault)
        if fault and fault.status:
            answer = {"message": "You are being rate limited.", "retry_after": fault.retry_after, "global": False}
            response = _json(answer, status=fault.status, headers={"Via": "1.1 google"} if fault.via else {})
        else:
            response = await handler(request)
        if fault and not fault.status:
            request.transport.abort()  # type: ignore[union-attr]
        self._notice()
        return response

    async def _rest(self, request: web.Request) -> web.Response:
        method, path, body = request.method, request.match_info["path"], request[BODY]
        if path == "/users/@me":
            return _json(self._me)
        if path == "/oauth2/applications/@me":
            return _json({"id": APPLICATION, "name": "Stacy", "icon": None, "description": "", "flags": 0, "bot_public": True,
                                      "bot_require_code_grant": False, "verify_key": "", "owner": self._me, "summary": ""})  # fmt: skip
        if path == f"/applications/{APPLICATION}/commands":
            self.commands = [{**command, "id": str(next(self._ids)), "application_id": APPLICATION, "version": "1"} for command in body]
            return _json(self.commands)
        found = re.fullmatch(r"/channels/(\d+)(/typing|/messages)?(?:/(\d+))?", path)
        if not found or found[1] not in self.messages:
            return _json({"message": "Unknown", "code": 10003}, status=404)
        channel, kind, id = found[1], found[2], found[3]
        if kind == "/typing":
            return web.Response(status=204)
        if kind is None:
            return _json(_channel(channel))
        if method == "GET":
            later = [one for one in self.messages[channel].values() if int(one["id"]) > int(request.query.get("after", 0))]
            return _json([*reversed(later[: int(request.query.get("limit", 50))])])
        return self._write(method, channel, id, body)

    def _write(self, method: str, channel: str, id: str | None, body: JSON) -> web.Response:
        if method == "POST":
            if (known := self._nonces.get((channel, str(body.get("nonce"))))) and body.get("enforce_nonce"):
                return _json(known)
            if not 0 < len(body["content"]) <= 2000:
                return _json({"message": "Invalid Form Body", "code": 50035}, status=400)
            message = self._message(channel, body["content"], self._me)
            self._nonces[channel, str(body.get("nonce"))] = message
            return _json(message)
        if id not in self.messages[channel]:
            return _json({"message": "Unknown Message", "code": 10008}, status=404)
        if method == "DELETE":
            del self.messages[channel][id]
            return web.Response(status=204)
        self.messages[channel][id]["content"] = body["content"]
        return _json(self.messages[channel][id])

    async def _gateway(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        deflate = zlib.compressobj() if request.query.get("compress") == "zlib-stream" else None
        session = Session("", 0, socket=socket, deflate=deflate)
        await session.send({"op": HELLO, "d": {"heartbeat_interval": self._heartbeat}, "s": None, "t": None})
        async for received in socket:
            if received.type is not WSMsgType.TEXT:
                break
            frame = json.loads(received.data)
            self.received.append(frame)
            if frame["op"] == HEARTBEAT and self.acknowledges:
                await session.send({"op": ACK, "d": None, "s": None, "t": None})
            elif frame["op"] == IDENTIFY:
                if frame["d"]["token"] != TOKEN:
                    await socket.close(code=4004, message=b"Authentication failed.")
                elif frame["d"]["intents"] & ~self._intents:
                    await socket.close(code=4014, message=b"Disallowed intent(s).")
                else:
                    session.id, session.intents = f"session-{len(self.received)}", frame["d"]["intents"]
                    await self._begin(session)
            elif frame["op"] == RESUME:
                known = self.sessions.get(frame["d"]["session_id"])
                if known is None or frame["d"]["token"] != TOKEN:
                    await session.send({"op": INVALID, "d": False, "s": None, "t": None})
                else:
                    known.socket, known.deflate = socket, deflate
                    session = self.session = known
                    for missed in known.events[frame["d"]["seq"] :]:
                        await session.send(missed)
                    await self.dispatch("RESUMED", {})
            self._notice()
        self._notice()
        return socket

    async def _begin(self, session: Session) -> None:
        self.session = self.sessions[session.id] = session
        await self.dispatch("READY", {"v": 10, "user": self._me, "guilds": [{"id": GUILD, "unavailable": True}], "session_id": session.id,
                                      "resume_gateway_url": self.gateway, "application": {"id": APPLICATION, "flags": 0}})  # fmt: skip
        await self.dispatch("GUILD_CREATE", _guild())


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """Discord names no character set."""
    return web.Response(body=json.dumps(value).encode(), status=status, headers={"Content-Type": "application/json", **(headers or {})})


def _member() -> JSON:
    return {"roles": [], "joined_at": "2026-01-01T00:00:00+00:00", "deaf": False, "mute": False, "flags": 0, "nick": None}


def _channel(id: str) -> JSON:
    if id == DIRECT:
        person = {"id": ANNA, "username": "anna", "discriminator": "0", "avatar": None, "global_name": "Anna"}
        return {"id": DIRECT, "type": 1, "last_message_id": None, "recipients": [person]}
    return {"id": GENERAL, "type": 0, "name": "general", "position": 0, "permission_overwrites": [], "guild_id": GUILD, "nsfw": False,
            "parent_id": None, "topic": None, "rate_limit_per_user": 0, "last_message_id": None}  # fmt: skip


def _guild() -> JSON:
    role = {"id": GUILD, "name": "@everyone", "color": 0, "hoist": False, "position": 0, "permissions": PERMISSIONS, "managed": False,
            "mentionable": False, "flags": 0, "colors": {"primary_color": 0, "secondary_color": None, "tertiary_color": None}}  # fmt: skip
    me = {**_member(), "user": {"id": BOT, "username": "stacy", "discriminator": "0", "avatar": None, "bot": True}}
    lists = ("emojis", "stickers", "features", "threads", "voice_states", "presences", "stage_instances")
    levels = ("verification_level", "default_message_notifications", "explicit_content_filter", "mfa_level", "nsfw_level")
    return {
        **{name: [] for name in (*lists, "guild_scheduled_events", "soundboard_sounds")},
        **dict.fromkeys((*levels, "premium_tier", "system_channel_flags"), 0),
        **dict.fromkeys(("icon", "banner", "description", "splash")),
        "id": GUILD,
        "name": "Kitchen",
        "owner_id": ANNA,
        "roles": [role],
        "members": [me],
        "channels": [_channel(GENERAL)],
        "member_count": 2,
        "large": False,
        "unavailable": False,
        "afk_timeout": 60,
        "preferred_locale": "en-US",
        "joined_at": "2026-01-01T00:00:00+00:00",
    }
