"""The bot on the wire: discord.py's real gateway and REST clients against a double on loopback. Nothing is answered twice or lost."""

import asyncio
import threading
from contextlib import asynccontextmanager

import discord
import pytest
import yarl
from discord.gateway import DiscordWebSocket
from discord.http import Route

from tests.townhall.discord_bot import discord_double as wire
from tests.townhall.discord_bot.discord_double import DIRECT, GENERAL, TOKEN, DiscordDouble, Fault
from tests.townhall.fake import FakeLlama
from townhall.discord_bot.bot_options import BotOptions
from townhall.discord_bot.persona_bot import PersonaBot
from townhall.logbook.log_reader import read_log

pytestmark = pytest.mark.slow


class Gate:
    """A model that says its words when it is let."""

    def __init__(self, first: str, rest: str):
        self.first, self.rest, self.opened, self.waiting = first, rest, threading.Event(), threading.Event()

    def model(self) -> FakeLlama:
        gate = self

        class Waiting(FakeLlama.generation):  # type: ignore[misc,valid-type]
            def _token(self, n):
                if n == len(self._model.tokenizer.encode(gate.first, bos=False)):
                    gate.waiting.set()
                    gate.opened.wait(60)
                return super()._token(n)

        llama = FakeLlama(lambda prompt: gate.first + gate.rest)
        llama.generation = Waiting  # type: ignore[assignment]
        return llama


@asynccontextmanager
async def connected(service, folder, monkeypatch, double=None, gate=None, **options):
    """(double, bot), once the bot has said that it is there."""
    double = await (double or DiscordDouble()).start()
    monkeypatch.setattr(Route, "BASE", double.base)
    monkeypatch.setattr(DiscordWebSocket, "DEFAULT_GATEWAY", yarl.URL(double.gateway))
    notes = []
    bot = PersonaBot(BotOptions("stacy", folder, **options), service, notes.append)
    there = asyncio.Event()
    bot._note = lambda said: (notes.append(said), there.set())
    bot.notes = notes
    bot._connection.guild_ready_timeout = 0.1  # seconds without a new server after which all are there
    await bot.login(TOKEN)
    running = asyncio.create_task(bot.connect())
    try:
        waiting = asyncio.create_task(there.wait())
        await asyncio.wait((running, waiting), timeout=120, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if running.done():
            running.result()
        yield double, bot
    finally:
        if gate:
            gate.opened.set()
        await bot.finish()
        await asyncio.wait((running,))
        await double.stop()


def sent(double, method="POST"):
    return [body["content"] for kind, path, body in double.requests if kind == method and path.endswith("/messages") and body]


def test_a_message_is_answered_over_the_wire(service, tmp_path, monkeypatch):
    async def story():
        async with connected(service(FakeLlama(["One two.", "Three."])), tmp_path, monkeypatch) as (double, bot):
            identify = next(frame for frame in double.received if frame["op"] == wire.IDENTIFY)
            assert identify["d"]["intents"] & wire.MESSAGE_CONTENT == 0
            assert {command["name"] for command in double.commands} == {"persona", "reset", "retry", "context", "memory"}
            question = await double.say("how far is the moon?")
            await double.until(lambda: double.said() == ["One two."])
            await double.say("hello", DIRECT)
            await double.until(lambda: double.said(DIRECT) == ["Three."])
            posted = next(body for method, path, body in double.requests if method == "POST" and body)
            assert posted["allowed_mentions"]["parse"] == [] and not posted["allowed_mentions"].get("replied_user")
            assert str(posted["message_reference"]["message_id"]) == question["id"] and posted["enforce_nonce"] is True
            assert bot.notes == ["stacy is on Discord, in 1 servers; Ctrl-C ends it"]

    asyncio.run(story())


def test_a_socket_that_is_cut_in_mid_reply_costs_nothing(service, tmp_path, monkeypatch):
    gate = Gate("It begins.", " And it ends.")

    async def story():
        async with connected(service(gate.model()), tmp_path, monkeypatch, gate=gate) as (double, bot):
            first = await double.say("one")
            await double.until(lambda: double.said() == ["It begins."])
            await double.cut()
            second = await double.say("two")  # while the bot is not there
            await double.until(lambda: any(frame["op"] == wire.RESUME for frame in double.received))
            for number in range(1, len(double.session.events) + 1):  # and everything once more
                if double.session.events[number - 1]["t"] == "MESSAGE_CREATE":
                    await double.again(number)
            gate.opened.set()
            await double.until(lambda: double.said() == ["It begins. And it ends."] * 2)
            await double.say("three")
            await double.until(lambda: len(double.said()) == 3)
            assert len(sent(double)) == 3  # what was sent again was not answered again
            log = read_log((await bot.talk.chats.find(int(GENERAL))).file.path)
            assert [turn.text for turn in log.turns[::2]] == ["Anna: one", "Anna: two", "Anna: three"] and first["id"] < second["id"]

    asyncio.run(story())


def test_nothing_is_lost_or_doubled_over_many_resumes(service, tmp_path, monkeypatch):
    """Cut at every message, each of them sent twice; then a session that cannot be resumed, and one that Discord ends itself."""

    async def story():
        llama = FakeLlama(lambda prompt: f"Number {prompt.rpartition('number ')[2].split('<')[0]}.")
        async with connected(service(llama), tmp_path, monkeypatch, most_of_one=100) as (double, bot):
            expected = []
            for n in range(12):
                await double.cut()
                await double.say(f"number {n}")
                await double.again(len(double.session.events))
                await double.until(lambda resumes=n + 1: sum(frame["op"] == wire.RESUME for frame in double.received) == resumes)
                await double.again(len(double.session.events) - 1)
                expected.append(f"Number {n}.")
            await double.until(lambda: double.said() == expected)
            await double.order(wire.RECONNECT)
            await double.say("number 12")
            await double.until(lambda: len(double.said()) == 13)
            # the session is over, and what was said meanwhile comes with no event at all
            double.forget()
            await double.say("number 13", silent=True)
            await double.cut()
            await double.until(lambda: sum(frame["op"] == wire.IDENTIFY for frame in double.received) == 2)
            await double.say("number 14")
            await double.until(lambda: len(double.said()) == 15)
            assert double.said() == [f"Number {n}." for n in range(15)] == sent(double)

    asyncio.run(story())


def test_rate_limits_and_lost_receipts_are_survived(service, tmp_path, monkeypatch):
    async def story():
        async with connected(service(FakeLlama(["One.", "Two.", "Three.", "Four."])), tmp_path, monkeypatch) as (double, bot):
            for number, fault in enumerate(
                [
                    Fault("POST", f"/channels/{GENERAL}/messages", 429, retry_after=0.02),
                    Fault("POST", f"/channels/{GENERAL}/messages"),  # it came, and the bot does not know
                    Fault("POST", f"/channels/{GENERAL}/messages", 502),
                    Fault("POST", f"/channels/{GENERAL}/typing", 403),
                ],
                1,
            ):
                double.faults.append(fault)
                await double.say("go on")
                await double.until(lambda number=number: len(double.said()) == number and not double.faults)
            await double.until(lambda: len(sent(double)) == 7)
            assert double.said() == ["One.", "Two.", "Three.", "Four."]

    asyncio.run(story())


def test_a_lost_edit_is_made_up_for(service, tmp_path, monkeypatch):
    gate = Gate("It begins.", " And it ends.")

    async def story():
        async with connected(service(gate.model()), tmp_path, monkeypatch, gate=gate) as (double, bot):
            await double.say("one")
            await double.until(lambda: double.said() == ["It begins."])
            double.faults += [Fault("PATCH", ".*", 429), Fault("PATCH", ".*")]
            gate.opened.set()
            await double.until(lambda: double.said() == ["It begins. And it ends."] and not double.faults)

    asyncio.run(story())


def test_heartbeats_go_on_and_a_silent_gateway_is_left(service, tmp_path, monkeypatch):
    async def story():
        async with connected(service(), tmp_path, monkeypatch, DiscordDouble(heartbeat=50)) as (double, bot):
            await double.until(lambda: sum(frame["op"] == wire.HEARTBEAT for frame in double.received) > 4)
            assert sum(frame["op"] == wire.IDENTIFY for frame in double.received) == 1
            await double.order(wire.INVALID, True)  # to be resumed
            await double.until(lambda: any(frame["op"] == wire.RESUME for frame in double.received))
            await double.say("hello", DIRECT)
            await double.until(lambda: double.said(DIRECT))

    asyncio.run(story())


def test_a_deleted_question_is_not_answered_and_a_deleted_reply_ends(service, tmp_path, monkeypatch):
    gate = Gate("It begins.", " And it ends.")

    async def story():
        async with connected(service(gate.model()), tmp_path, monkeypatch, gate=gate) as (double, bot):
            first, second = await double.say("one"), await double.say("two")
            await double.until(lambda: double.said() == ["It begins."])
            for message in (second, first):
                await double.dispatch("MESSAGE_DELETE", {"id": message["id"], "channel_id": GENERAL, "guild_id": wire.GUILD})
            await double.say("three", DIRECT)
            gate.opened.set()
            await double.until(lambda: double.said(DIRECT) == ["It begins. And it ends."] and not double.said())
            assert len(sent(double)) == 2

    asyncio.run(story())


def test_what_there_is_no_room_for_is_passed_over_and_said(service, tmp_path, monkeypatch):
    gate = Gate("It begins.", " And it ends.")

    async def story():
        async with connected(service(gate.model()), tmp_path, monkeypatch, gate=gate, most_of_one=2) as (double, bot):
            for text in ("one", "two", "three", "four"):
                await double.say(text, DIRECT)
                await double.until(lambda: double.said(DIRECT))  # the first one is being answered, the others wait
            await double.until(lambda: len(double.said(DIRECT)) == 2)
            assert double.said(DIRECT)[1].startswith("2 messages wait for an answer here already")
            gate.opened.set()
            await double.until(lambda: double.said(DIRECT).count("It begins. And it ends.") == 3)

    asyncio.run(story())


def test_an_intent_that_is_off_is_refused_by_the_gateway(service, tmp_path, monkeypatch):
    async def story():
        double = DiscordDouble(intents=~wire.MESSAGE_CONTENT)
        with pytest.raises(discord.PrivilegedIntentsRequired):
            async with connected(service(), tmp_path, monkeypatch, double, channels=frozenset({"general"})):
                pass

    asyncio.run(story())
