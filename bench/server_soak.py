"""A server under clients as they are: python -m bench.server_soak [--minutes 10] [--clients 16] [--kills 500]

Clients chat, leave in mid-stream, and send nonsense, at random, each with a secret that no reply to another may hold; meanwhile a process
of its own asks /health all the time. Told at the end: answers by status, how long first texts and /health took, and how the server's memory
went. Exit code 1 where a promise was not kept: no error but the intended ones, flat memory, /health within 100 ms.
"""

import argparse
import asyncio
import multiprocessing
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
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
GROWTH = 0.05  # of memory, from a quarter of the time on: by then every slot has its cache
NAP = 0.2  # seconds between two looks at /health
PARTS = 12  # of a soak, after each of which the memory is looked at
WORDS = ["moon", "sun", "why", "colour", "🎉", "tell"]


def secret_of(number: int) -> str:
    """What client `number` tells the model, and no other client does."""
    return f"{random.Random(f'secret {number}').getrandbits(40):010x}"


async def visit(
    served: Served,
    client: httpx.AsyncClient,
    chance: random.Random,
    seen: Counter[str],
    first: list[float],
    messages: Messages,
    secret: str,
    others: Sequence[str],
) -> None:
    """One thing that a client does; `first` takes the seconds to an answer's first text."""
    what = chance.random()
    if what < 0.15:
        response = await client.post(f"{served.url}/chat/completions", content=chance.choice(WRONG))
        assert "error" in response.json(), response.text
        seen[f"nonsense: {response.status_code}"] += 1
        return
    words = " ".join(chance.choices(WORDS, k=chance.randint(1, 30)))
    messages.append({"role": "user", "content": f"My secret is {secret}. Say it, and then: {words}"})
    leave_after = chance.randint(0, 20) if what < 0.5 else None
    text, count, started = "", 0, time.perf_counter()
    try:
        async for chunk in chunks(client, served, {"messages": messages, "max_tokens": chance.randint(1, 60)}):
            if "error" in chunk:
                seen[f"broke off: {chunk['error']['code']}"] += 1
                return
            count += 1
            piece = (chunk["choices"][0]["delta"].get("content") or "") if chunk["choices"] else ""
            if piece and not text:
                first.append(time.perf_counter() - started)
            text += piece
            if leave_after is not None and count > leave_after:
                seen["left in mid-stream"] += 1
                break
        else:
            seen["answered"] += 1
    except httpx.HTTPStatusError as error:
        seen[f"chat: {error.response.status_code}"] += 1
    if secret in text:
        seen["said its own secret"] += 1
    if any(other in text for other in others):
        seen["failed: said another's secret"] += 1
    messages.append({"role": "assistant", "content": text or "…"})
    if chance.random() < 0.05:
        messages.clear()


async def live(served: Served, number: int, clients: int, until: float, seen: Counter[str], first: list[float]) -> None:
    """One client of so many, again and again."""
    chance, messages = random.Random(number), list[dict[str, str]]()
    others = [secret_of(n) for n in range(clients) if n != number]
    async with httpx.AsyncClient(timeout=120) as client:
        while time.monotonic() < until:
            try:
                await visit(served, client, chance, seen, first, messages, secret_of(number), others)
            except (httpx.TransportError, AssertionError) as error:
                seen[f"failed: {type(error).__name__}"] += 1


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


async def soak(served: Served, minutes: float, clients: int) -> bool:
    """True where every promise was kept."""
    seen, first = Counter[str](), list[float]()
    memory = [served.rss()]
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        watching = pool.submit(watch, served.health, 60 * minutes)
        until = time.monotonic() + 60 * minutes

        async def weigh() -> None:
            for _ in range(PARTS):
                await asyncio.sleep(60 * minutes / PARTS)
                memory.append(served.rss())

        await asyncio.gather(weigh(), *(live(served, n, clients, until, seen, first) for n in range(clients)))
        asked = watching.result()
    return report(seen, asked, first, memory)


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
    print("memory, MB: " + ", ".join(f"{nbytes / 1e6:.0f}" for nbytes in memory))
    bad = sorted(what for what in seen if ": " in what and what.rpartition(": ")[2] not in INTENDED)
    quarter, end = memory[(len(memory) - 1 + 3) // 4], memory[-1]
    verdicts = {
        f"no error but the intended ones{': ' + ', '.join(bad) if bad else ''}": not bad,
        f"memory flat: {quarter / 1e6:.0f} MB after a quarter, {end / 1e6:.0f} at the end": end <= quarter * (1 + GROWTH),
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="model file, or fake:echo  [default: the one that pull_llama.sh fetches]")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--kills", type=int, default=500)
    options = parser.parse_args()
    with townhall(options.model) as served:
        survived = asyncio.run(kill(served, options.kills)) if options.kills else True
        fine = asyncio.run(soak(served, options.minutes, options.clients)) if options.minutes else True
    return 0 if survived and fine else 1


if __name__ == "__main__":
    sys.exit(main())
