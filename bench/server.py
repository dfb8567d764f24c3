"""Many clients at once: python -m bench.server [--clients 1 4 16] [--against llama.cpp]

Each client has a chat of five turns, all of them at the same time: time to first token, tokens per second in all, the share of each prompt
that was in a cache, and what turn five had to read. Sizes and seeds are fixed, so runs differ in time alone.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from bench.served import Served, chunks, llama_cpp, townhall
from townhall.cli.options import ChatOptions

QUESTIONS = (
    "When was the French Revolution?",
    "Which is bigger, the moon or the sun?",
    "Why is the sky blue?",
    "Name three colours and three animals.",
    "What did I ask you first?",
)
ANSWER = 48  # tokens, at most
CONTEXT = 2048


@dataclass(frozen=True)
class Turn:
    """One answer; times in seconds."""

    number: int
    first: float
    whole: float
    prompt: int
    cached: int
    tokens: int
    own: int  # prompt tokens that no earlier turn of this chat had


async def chat(served: Served, client: httpx.AsyncClient, name: int) -> list[Turn]:
    """Five turns, one after another."""
    messages: list[dict[str, str]] = []
    turns: list[Turn] = []
    known = 0
    for number, question in enumerate(QUESTIONS, 1):
        messages.append({"role": "user", "content": f"{question} (I am visitor {name}.)"})
        started, first, text = time.perf_counter(), 0.0, ""
        usage: dict[str, Any] = {}
        async for chunk in chunks(client, served, {"messages": messages, "max_tokens": ANSWER, "seed": name, "temperature": 0.3}):
            if chunk["choices"] and (piece := chunk["choices"][0]["delta"].get("content")):
                first = first or time.perf_counter() - started
                text += piece
            usage = chunk.get("usage") or usage
        whole = time.perf_counter() - started
        prompt, tokens = usage["prompt_tokens"], usage["completion_tokens"]
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        turns.append(Turn(number, first or whole, whole, prompt, cached, tokens, prompt - known))
        known = prompt + tokens
        messages.append({"role": "assistant", "content": text})
    return turns


async def measure(served: Served, clients: int) -> tuple[float, list[Turn]]:
    """(seconds in all, every turn of every client)."""
    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(timeout=600, limits=limits) as client:
        started = time.perf_counter()
        chats = await asyncio.gather(*(chat(served, client, n) for n in range(clients)))
        return time.perf_counter() - started, [turn for one in chats for turn in one]


def report(served: Served, clients: int, seconds: float, turns: Sequence[Turn]) -> str:
    """One row."""
    first = [turn.first for turn in turns]
    fifth = [turn for turn in turns if turn.number == len(QUESTIONS)]
    read, own = sum(turn.prompt - turn.cached for turn in fifth) / len(fifth), sum(turn.own for turn in fifth) / len(fifth)
    share = sum(turn.cached for turn in turns) / sum(turn.prompt for turn in turns)
    whole = [turn.whole for turn in turns]
    times = "".join(f"{_at(values, percent):>10.2f}" for values in (first, whole) for percent in (50, 95))
    rate = sum(turn.tokens for turn in turns) / seconds
    return f"{served.name:<10}{clients:>8}{rate:>12.1f}{times}{share:>10.0%}{read:>9.0f} of {own:.0f}"


HEADER = f"{'server':<10}{'clients':>8}{'tokens/s':>12}{'first p50':>10}{'p95':>10}{'whole p50':>10}{'p95':>10}{'cached':>10}  turn 5 read"


def _at(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else values[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="model file  [default: the one that pull_llama.sh fetches]")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--against", choices=["llama.cpp"])
    options = parser.parse_args()
    model = ChatOptions(model=options.model).model_path()
    most = max(options.clients)
    print(HEADER, flush=True)

    def run(served: Served) -> None:
        asyncio.run(measure(served, 1))  # compiles, loads
        for clients in options.clients:
            print(report(served, clients, *asyncio.run(measure(served, clients))), flush=True)

    flags: list[Any] = ["--slots", str(most), "--max-context", str(CONTEXT)]
    with townhall(model, flags) as served:
        run(served)
    if options.against:
        with llama_cpp(model, most, CONTEXT) as served:
            run(served)


if __name__ == "__main__":
    main()
