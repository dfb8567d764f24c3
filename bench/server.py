"""Many clients at once: python -m bench.server [--clients 1 4 16] [--against llama.cpp | PATH]

Each client has a chat of five turns with the bare model, all of them at the same time: time to first token, tokens per second in all, the
share of each prompt that was in a cache, and what turn five had to read. Sizes and seeds are fixed, so runs differ in time alone. PATH is a
llama-server, or another checkout of Townhall. bench.server_batches alternates the two, with single replies instead of chats.
"""

import argparse
import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from bench.served import Served, at, chunks, llama_cpp, named_server, townhall
from townhall.cli.chat_options import ChatOptions

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
class ServerTurn:
    """One answer; times in seconds."""

    number: int
    first: float
    whole: float
    tokens: int
    prompt: int | None  # None where the server does not say
    cached: int = 0
    own: int = 0  # prompt tokens that no earlier turn of this chat had


async def chat(served: Served, client: httpx.AsyncClient, name: int) -> list[ServerTurn]:
    """Five turns, one after another."""
    messages: list[dict[str, str]] = []
    turns: list[ServerTurn] = []
    known = 0
    for number, question in enumerate(QUESTIONS, 1):
        messages.append({"role": "user", "content": f"{question} (I am visitor {name}.)"})
        started, first, text, pieces = time.perf_counter(), 0.0, "", 0
        usage: dict[str, Any] = {}
        async for chunk in chunks(client, served, {"messages": messages, "max_tokens": ANSWER, "seed": name, "temperature": 0.3}):
            if chunk["choices"] and (piece := chunk["choices"][0]["delta"].get("content")):
                first = first or time.perf_counter() - started
                text += piece
                pieces += 1  # a token each, or more, where no usage is reported
            usage = chunk.get("usage") or usage
        whole = time.perf_counter() - started
        if usage:
            prompt, tokens = usage["prompt_tokens"], usage["completion_tokens"]
            cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
            turns.append(ServerTurn(number, first or whole, whole, tokens, prompt, cached, prompt - known))
            known = prompt + tokens
        else:
            turns.append(ServerTurn(number, first or whole, whole, pieces, None))
        messages.append({"role": "assistant", "content": text})
    return turns


async def measure(served: Served, clients: int) -> tuple[float, list[ServerTurn]]:
    """(seconds in all, every turn of every client)."""
    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(timeout=600, limits=limits) as client:
        started = time.perf_counter()
        chats = await asyncio.gather(*(chat(served, client, n) for n in range(clients)))
        return time.perf_counter() - started, [turn for one in chats for turn in one]


def report(served: Served, clients: int, seconds: float, turns: Sequence[ServerTurn]) -> str:
    """One row."""
    first = [turn.first for turn in turns]
    whole = [turn.whole for turn in turns]
    times = "".join(f"{at(values, percent):>10.2f}" for values in (first, whole) for percent in (50, 95))
    rate = sum(turn.tokens for turn in turns) / seconds
    return f"{served.name:<10}{clients:>8}{rate:>12.1f}{times}{_reuse(turns)}"


def _reuse(turns: Sequence[ServerTurn]) -> str:
    """What of the prompts was in a cache, and what turn five had to read of its own."""
    info = [(turn, turn.prompt) for turn in turns if turn.prompt is not None]
    if len(info) < len(turns):
        return f"{'not info':>10}"
    share = sum(turn.cached for turn in turns) / sum(prompt for _, prompt in info)
    fifth = [(prompt - turn.cached, turn.own) for turn, prompt in info if turn.number == len(QUESTIONS)]
    read, own = (sum(column) / len(fifth) for column in zip(*fifth, strict=True))
    return f"{share:>10.0%}{read:>9.0f} of {own:.0f}"


HEADER = f"{'server':<10}{'clients':>8}{'tokens/s':>12}{'first p50':>10}{'p95':>10}{'whole p50':>10}{'p95':>10}{'cached':>10}  turn 5 read"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="model file  [default: the one that pull_llama.sh fetches]")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument(
        "--against", metavar="llama.cpp|PATH", help="llama.cpp's server (on the PATH, or Python's), or the path of a server"
    )
    options = parser.parse_args()
    model = ChatOptions(model=options.model).model_path()
    most = max(options.clients)
    print(HEADER, flush=True)

    def run(served: Served) -> None:
        asyncio.run(measure(served, 1))  # compiles, loads
        for clients in options.clients:
            print(report(served, clients, *asyncio.run(measure(served, clients))), flush=True)

    flags: list[Any] = ["--slots", str(most), "--max-context", str(CONTEXT)]
    with townhall(model, flags, bare=True) as served:
        run(served)
    if options.against:
        there = Path(options.against).absolute()
        other = llama_cpp(model, most, CONTEXT) if options.against == "llama.cpp" else named_server(there, model.absolute(), most, CONTEXT)
        with other as served:
            run(served)


if __name__ == "__main__":
    main()
