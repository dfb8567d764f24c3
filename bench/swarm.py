"""What a swarm costs beside one server, and what comes back to its replica: python -m bench.swarm [--runs 3] [--chats 200]

Both serve the scripted echo model, whose own time is next to nothing, so that what is measured is the way there and back: alternating
runs of a `townhall serve` and of a swarm of one replica (Ray's proxy, the front, the replica), seconds per request and per streamed
token, and their ratio. Then chats of five turns with two replicas: the share of later turns that the replica of the turn before answered.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from bench.served import ROOT, free_port, townhall

WORDS = 200  # tokens of a streamed reply
FILE = """\
port: {port}
models:
  one: {{model: "fake:echo", cpus: 0, slots: 64}}
  two: {{model: "fake:echo", cpus: 0, slots: 64, replicas: 2}}
"""


@contextmanager
def swarm(folder: Path) -> Iterator[str]:
    """A swarm of this checkout; yields its URL."""
    port = free_port()
    file = folder / "swarm.yaml"
    file.write_text(FILE.format(port=port))
    environment = {**os.environ, "XDG_STATE_HOME": str(folder)}
    command = [sys.executable, "-m", "townhall", "swarm"]
    subprocess.run([*command, "up", str(file)], check=True, cwd=ROOT, env=environment)
    try:
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        subprocess.run([*command, "down"], check=True, cwd=ROOT, env=environment)


def per_request(client: httpx.Client, url: str, model: str, requests: int) -> float:
    """Seconds of a request for one token, one after another."""
    body = {"model": model, "messages": [{"role": "user", "content": "la"}], "max_tokens": 1}
    started = time.perf_counter()
    for _ in range(requests):
        client.post(f"{url}/chat/completions", json=body).raise_for_status()
    return (time.perf_counter() - started) / requests


def per_token(client: httpx.Client, url: str, model: str, requests: int) -> float:
    """Seconds of a token within a stream, from the first piece to the last."""
    body = {"model": model, "messages": [{"role": "user", "content": " ".join(["la"] * WORDS)}], "stream": True}
    seconds = 0.0
    for _ in range(requests):
        with client.stream("POST", f"{url}/chat/completions", json=body) as reply:
            pieces = reply.iter_bytes()
            next(pieces)
            started = time.perf_counter()
            for _ in pieces:
                pass
            seconds += time.perf_counter() - started
    return seconds / (requests * WORDS)


async def chats(url: str, count: int) -> tuple[float, float]:
    """(share of later turns that came back, share of their prompts that was cached) of chats of five turns, 16 at a time."""
    gate, returned = asyncio.Semaphore(16), [0, 0]
    tokens = [0, 0]

    async def one(client: httpx.AsyncClient, name: int) -> None:
        messages: list[dict[str, str]] = []
        before = ""
        async with gate:
            for turn in range(5):
                messages.append({"role": "user", "content": f"visitor {name} says {turn}"})
                reply = await client.post(f"{url}/chat/completions", json={"model": "two", "messages": messages})
                reply.raise_for_status()
                replica, usage = reply.headers["x-townhall-replica"], reply.json()["usage"]
                if before:
                    returned[0] += replica == before
                    returned[1] += 1
                    tokens[0] += usage["prompt_tokens_details"]["cached_tokens"]
                    tokens[1] += usage["prompt_tokens"]
                before = replica
                messages.append({"role": "assistant", "content": reply.json()["choices"][0]["message"]["content"]})

    async with httpx.AsyncClient(timeout=600) as client:
        await asyncio.gather(*(one(client, n) for n in range(count)))
    return returned[0] / returned[1], tokens[0] / tokens[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="of each, alternating")
    parser.add_argument("--requests", type=int, default=30, help="in a run")
    parser.add_argument("--chats", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, swarm(Path(folder)) as url, townhall(Path("fake:echo"), bare=True) as plain:
        ways = {"serve": (plain.url, plain.model), "swarm": (url, "one")}
        found: dict[str, dict[str, list[float]]] = {name: {"request": [], "token": []} for name in ways}
        with httpx.Client(timeout=600) as client:
            for run in range(options.runs + 1):
                for name, (where, model) in ways.items():
                    request = per_request(client, where, model, options.requests)
                    token = per_token(client, where, model, max(1, options.requests // 10))
                    if run:  # the first warms up
                        found[name]["request"].append(request)
                        found[name]["token"].append(token)
        for what in ("request", "token"):
            one, many = (statistics.median(found[name][what]) * 1e3 for name in ("serve", "swarm"))
            ratio = statistics.median(b / a for a, b in zip(found["serve"][what], found["swarm"][what]))
            print(f"a {what:<8} serve {one:7.2f} ms   swarm {many:7.2f} ms   {many - one:+.2f} ms, ratio {ratio:.2f}", flush=True)
        if options.chats:
            back, cached = asyncio.run(chats(url, options.chats))
            print(f"{options.chats} chats of five turns, two replicas: {back:.1%} of later turns came back; {cached:.0%} of prompts cached")


if __name__ == "__main__":
    main()
