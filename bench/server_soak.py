"""A server under clients as they are: python -m bench.server_soak [--minutes 10] [--clients 16] [--kills 500] [--models 2]

Clients chat with messages from a word to more than the window holds, leave in mid-stream and while their prompt is read, and send nonsense,
at random, each with a secret that no reply to another may hold; meanwhile a process of its own asks /health all the time. With two models
they ask for either, and there is memory for one and a half. Told at the end: answers by status, how long first texts and /health took, and
how the server's memory went. Exit code 1 where a promise was not kept: no error but the intended ones, no secret in another's reply, flat
memory, /health within 100 ms.
"""

import argparse
import asyncio
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from bench.served import Served, at, chunks, townhall

Messages = list[dict[str, str]]
HEALTH_WITHIN = 0.1  # seconds
WRONG: tuple[Any, ...] = (
    b"{",
    b"\xff\xfe",
    b"[" * 50_000,
    b'{"model":"stacy","messages":[]}',
    b'{"model":7,"messages":[{"role":"user","content":"Hi"}]}',
    b'{"model":"stacy","messages":[{"role":"user","content":"Hi"}],"tools":[{}]}',
    b'{"model":"stacy","messages":[{"role":"user","content":"Hi"}],"temperature":"hot"}',
    b'{"model":"stacy","context":"stop","messages":[{"role":"user","content":"' + b"word " * 20_000 + b'"}]}',
    b" " * 5_000_000,
)
INTENDED = {"400", "413", "429"}
STOLEN = "failed: said another's secret"
GROWTH = 0.05  # of memory, between the halves
WEIGHING = 1.0  # seconds between two looks at the memory
NAP = 0.2  # seconds between two looks at /health
PARTS = 12  # of a soak, of each of which the median is printed
WORDS = ["moon", "sun", "why", "colour", "🎉", "tell"]
LONGEST = 1100  # words of a message: more than a window of 1,024 tokens holds
HASTE = 0.5  # seconds within which a client leaves that does not wait for the first text
ROOM = 1.5  # models that there is memory for, where there are two
CONTEXT, SLOTS = 1024, 4


def secret_of(number: int) -> str:
    """What client `number` tells the model, and no other client does."""
    return f"{random.Random(f'secret {number}').getrandbits(40):010x}"


@dataclass
class Soak:
    """What clients do to a server until `over`, and what came of it; `models` are those that they ask for."""

    served: Served
    clients: int
    over: Callable[["Soak"], bool]
    models: Sequence[str] = ("stacy",)
    seen: Counter[str] = field(default_factory=Counter)
    first: list[float] = field(default_factory=list)  # seconds to an answer's first text
    visits: int = 0

    async def run(self) -> None:
        """All clients at once."""
        await asyncio.gather(*(self._live(number) for number in range(self.clients)))

    async def _live(self, number: int) -> None:
        chance, messages = random.Random(number), Messages()
        others = [secret_of(n) for n in range(self.clients) if n != number]
        async with httpx.AsyncClient(timeout=300) as client:
            while not self.over(self):
                self.visits += 1
                try:
                    await self.visit(client, chance, messages, secret_of(number), others)
                except (httpx.TransportError, AssertionError) as error:
                    self.seen[f"failed: {type(error).__name__}"] += 1

    async def visit(self, client: httpx.AsyncClient, chance: random.Random, messages: Messages, secret: str, others: Sequence[str]) -> None:
        """One thing that a client does."""
        what = chance.random()
        if what < 0.15:
            response = await client.post(f"{self.served.url}/chat/completions", content=chance.choice(WRONG))
            assert "error" in response.json(), response.text
            self.seen[f"nonsense: {response.status_code}"] += 1
            return
        words = " ".join(chance.choices(WORDS, k=round(LONGEST ** chance.random())))  # as many short ones as long ones, by their length
        messages.append({"role": "user", "content": f"My secret is {secret}. Say it, and then: {words}"})
        body = {"model": chance.choice(self.models), "messages": messages, "max_tokens": round(60 ** chance.random())}
        text = ""
        if what < 0.25:
            try:
                async with asyncio.timeout(HASTE * chance.random()):
                    text = await self._answer(client, body, None)
            except TimeoutError:
                self.seen["left before the first text, or soon after"] += 1
        else:
            text = await self._answer(client, body, chance.randint(0, 20) if what < 0.5 else None)
        self.seen["said its own secret"] += secret in text
        self.seen[STOLEN] += any(other in text for other in others)
        messages.append({"role": "assistant", "content": text or "…"})
        if chance.random() < 0.05:
            messages.clear()

    async def _answer(self, client: httpx.AsyncClient, body: dict[str, Any], leave_after: int | None) -> str:
        """The text of a reply, or of its first chunks where the client leaves after so many."""
        text, count, started = "", 0, time.perf_counter()
        try:
            async for chunk in chunks(client, self.served, body):
                if "error" in chunk:
                    self.seen[f"broke off: {chunk['error']['code']}"] += 1
                    return text
                count += 1
                piece = (chunk["choices"][0]["delta"].get("content") or "") if chunk["choices"] else ""
                if piece and not text:
                    self.first.append(time.perf_counter() - started)
                text += piece
                if leave_after is not None and count > leave_after:
                    self.seen["left in mid-stream"] += 1
                    break
            else:
                self.seen["answered"] += 1
        except httpx.HTTPStatusError as error:
            self.seen[f"chat: {error.response.status_code}"] += 1
        return text


@dataclass(frozen=True)
class SoakRequest:
    """One look at /health; all in seconds."""

    when: float
    took: float
    overslept: float  # by a nap before it: how long the machine had other things to do than the server, or whoever asks it


def watch(url: str, seconds: float) -> list[SoakRequest]:
    """Ask /health five times a second."""
    asked: list[SoakRequest] = []
    with httpx.Client(timeout=30) as client:
        began = time.perf_counter()
        while (lain_down := time.perf_counter()) - began < seconds:
            time.sleep(NAP)
            started = time.perf_counter()
            response = client.get(url)
            asked.append(SoakRequest(started - began, time.perf_counter() - started, started - lain_down - NAP))
            assert response.status_code == 200, response.text
    return asked


async def soak(served: Served, minutes: float, clients: int, models: Sequence[str]) -> bool:
    """True where every promise was kept."""
    memory, until = list[int](), time.monotonic() + 60 * minutes
    soaked = Soak(served, clients, lambda soak: time.monotonic() > until, models)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        watching = pool.submit(watch, served.health, 60 * minutes)

        async def weigh() -> None:
            while not soaked.over(soaked):
                memory.append(served.rss())
                await asyncio.sleep(WEIGHING)

        await asyncio.gather(weigh(), soaked.run())
        asked = watching.result()
    return report(+soaked.seen, asked, soaked.first, memory)


def report(seen: Counter[str], asked: Sequence[SoakRequest], first: Sequence[float], memory: Sequence[int]) -> bool:
    """Print what came up, and a verdict on each promise; True where all were kept."""
    for what, times in sorted(seen.items()):
        print(f"{times:>8}  {what}")
    if first:
        print(f"first text: p50 {1000 * at(first, 50):.0f} ms, p95 {1000 * at(first, 95):.0f} ms")
    seconds = [one.took for one in asked]
    late = [f"{1000 * one.took:.0f} ms at {one.when:.0f} s" for one in asked if one.took > HEALTH_WITHIN]
    quantiles = ", ".join(f"p{percent} {1000 * at(seconds, percent):.0f} ms" for percent in (50, 95))
    print(f"/health: {len(asked)} answers, {quantiles}, slowest {1000 * max(seconds):.0f} ms")
    print(f"         later than {1000 * HEALTH_WITHIN:.0f} ms: {', '.join(late) or 'none'}")
    print(f"         whoever asked overslept by {1000 * max(one.overslept for one in asked):.0f} ms at most: so busy was the machine")
    parts = [memory[len(memory) * part // PARTS : len(memory) * (part + 1) // PARTS] for part in range(PARTS)]
    print("memory, MB, medians: " + ", ".join(f"{at(part, 50) / 1e6:.0f}" for part in parts if part))
    stolen = seen[STOLEN]
    bad = sorted(what for what in seen if ": " in what and what.rpartition(": ")[2] not in INTENDED)
    # not the most: while models take turns that is the moment at which one was still leaving
    half = len(memory) // 2
    early, later = ([at(part, percent) for percent in (50, 95)] for part in (memory[:half] or memory, memory[half:]))
    weighed = ", in the second ".join(f"{typical / 1e6:.0f} MB (p95 {most / 1e6:.0f})" for typical, most in (early, later))
    verdicts = {
        f"no error but the intended ones{': ' + ', '.join(bad) if bad else ''}": not bad,
        f"no secret in another's reply{f': {stolen} times' if stolen else ''}": not stolen,
        f"memory flat: median in the first half {weighed}": all(b <= a * (1 + GROWTH) for a, b in zip(early, later, strict=True)),
        f"/health within {1000 * HEALTH_WITHIN:.0f} ms": not late,
    }
    for what, held in verdicts.items():
        print(f"{'held' if held else 'NOT HELD':<10}{what}")
    return all(verdicts.values())


async def kill(served: Served, times: int) -> bool:
    """Leave in mid-stream, again and again; True where the server then answers with every slot free."""
    body = {"messages": [{"role": "user", "content": "Tell me a long story."}], "max_tokens": 400}

    async def one(chance: random.Random) -> None:
        async with httpx.AsyncClient(timeout=120) as client:
            count, leave_after = 0, chance.randint(0, 5)
            async for _ in chunks(client, served, body):
                count += 1
                if count > leave_after:
                    break

    for start in range(0, times, 10):
        await asyncio.gather(*(one(random.Random(start + n)) for n in range(10)))
    await asyncio.sleep(1)
    async with httpx.AsyncClient(timeout=30) as client:
        health = (await client.get(served.health)).json()
    active, waiting = health["slots"]["active"], health["queue"]["waiting"]
    print(f"{times} clients left in mid-stream; then {active} slots were busy, {waiting} requests waited")
    return bool(active == waiting == 0)


def second_model(model: Path | None, folder: Path) -> tuple[list[str], list[str]]:
    """(flags of a server that has the model twice and memory for one and a half, ids to ask for): the second is a copy in `folder`."""
    from app.models.llama.memory_plan import PROCESS, ModelDemand
    from townhall.cli.chat_options import ChatOptions

    path = model or ChatOptions().model_path()
    copied = folder / "second.gguf"
    try:
        os.link(path.resolve(), copied)
    except OSError:  # on another file system
        shutil.copyfile(path, copied)
    planned = ModelDemand.of(path, CONTEXT, SLOTS).nbytes(True) - PROCESS
    flags = ["--models-dir", str(folder), "--slots", str(SLOTS), "--memory", str(PROCESS + int(ROOM * planned))]
    return flags, ["stacy", "second", "stacy@second"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="model file, or fake:echo  [default: the one that pull_llama.sh fetches]")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--models", type=int, choices=(1, 2), default=2, help="that are asked for  [default: 2; 1 with fake:echo]")
    options = parser.parse_args()
    if str(options.model).startswith("fake:"):
        options.models = 1
    with tempfile.TemporaryDirectory() as folder:
        flags, models = second_model(options.model, Path(folder)) if options.models == 2 else ([], ["stacy"])
        with townhall(options.model, flags) as served:
            survived = asyncio.run(kill(served, options.kills)) if options.kills else True
            fine = asyncio.run(soak(served, options.minutes, options.clients, models)) if options.minutes else True
    return 0 if survived and fine else 1


if __name__ == "__main__":
    sys.exit(main())
