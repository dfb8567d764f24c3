"""Replies side by side: python -m bench.server_batches [--clients 1 4 16] [--against PATH] [--rounds 3]

Each client streams one reply of 64 tokens to a prompt of about 64, all at the same time: tokens per second in all, and the time between
tokens. Then a prompt of 4,000 tokens arrives while three others are answered: by how much their next token is late. PATH is another
checkout of Townhall, such as a git worktree of an earlier commit, or a llama-server; rounds alternate, and ratios are of medians.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from bench.served import Served, at, chunks, llama_server, townhall
from townhall.cli.chat_options import ChatOptions

REPLY = 64  # tokens
LONG_REPLY = 400
CONTEXT = 4608
LONG_PROMPT = 4000  # tokens, about
PROMPT = "Tell me a story about a lighthouse keeper, a storm and a lost ship, in plain words. " * 3


@dataclass
class StreamTimes:
    """When each piece of a reply came, by perf_counter, and how many tokens it had."""

    asked: float
    pieces: list[float] = field(default_factory=list)
    tokens: int = 0

    @property
    def gaps(self) -> list[float]:
        return [later - earlier for earlier, later in zip(self.pieces, self.pieces[1:], strict=False)]


async def stream(client: httpx.AsyncClient, served: Served, prompt: str, tokens: int, seed: int) -> StreamTimes:
    """One reply; its tokens are counted by the server where it tells, else by pieces."""
    times = StreamTimes(time.perf_counter())
    body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": tokens, "seed": seed, "temperature": 0.8}
    async for chunk in chunks(client, served, body):
        if chunk["choices"] and chunk["choices"][0]["delta"].get("content"):
            times.pieces.append(time.perf_counter())
        times.tokens = (chunk.get("usage") or {}).get("completion_tokens", times.tokens)
    times.tokens = times.tokens or len(times.pieces)
    return times


async def side_by_side(served: Served, clients: int, seed: int) -> tuple[float, list[float]]:
    """(tokens per second of all together, seconds between tokens)."""
    async with httpx.AsyncClient(timeout=600, limits=httpx.Limits(max_connections=clients)) as client:
        started = time.perf_counter()
        prompts = [f"{seed} {n}. {PROMPT}" for n in range(clients)]
        replies = await asyncio.gather(*(stream(client, served, prompt, REPLY, n) for n, prompt in enumerate(prompts)))
        return sum(one.tokens for one in replies) / (time.perf_counter() - started), [gap for one in replies for gap in one.gaps]


async def beside_a_long_prompt(served: Served, seed: int) -> float:
    """The longest time between two tokens of three replies, from the long prompt's arrival to its first token."""
    async with httpx.AsyncClient(timeout=600) as client:
        others = [asyncio.create_task(stream(client, served, f"{seed} {n}. {PROMPT}", LONG_REPLY, n)) for n in range(3)]
        await asyncio.sleep(1)
        long = await stream(client, served, f"{seed} " + "storm and ship " * (LONG_PROMPT // 3), 2, 0)
        replies = await asyncio.gather(*others)
    first = long.pieces[0] if long.pieces else time.perf_counter()
    spans = [(a, b) for one in replies for a, b in zip(one.pieces, one.pieces[1:], strict=False) if b > long.asked and a < first]
    return max((b - a for a, b in spans), default=0.0)


def report(name: str, found: dict[int, list[tuple[float, list[float]]]], long: Sequence[float]) -> None:
    """A line for each number of clients, and one for the long prompt."""
    alone: float | None = None
    for clients, rounds in found.items():
        rate = statistics.median(rate for rate, _ in rounds)
        gaps = [gap for _, all_gaps in rounds for gap in all_gaps]
        alone = alone or rate
        print(
            f"{name:<12}{clients:>8}{rate:>12.1f}{rate / alone:>10.2f}"
            + "".join(f"{1000 * at(gaps, percent):>10.1f}" for percent in (50, 95, 99)),
            flush=True,
        )
    if long:
        print(
            f"{name:<12} beside a prompt of {LONG_PROMPT} tokens the latest token took {1000 * statistics.median(long):.0f} ms", flush=True
        )


HEADER = f"{'server':<12}{'clients':>8}{'tokens/s':>12}{'of alone':>10}{'p50 ms':>10}{'p95 ms':>10}{'p99 ms':>10}"


@contextmanager
def other(path: Path, model: Path, slots: int) -> Iterator[Served]:
    """What --against names."""
    flags = ["--slots", str(slots), "--max-context", str(CONTEXT)]
    with townhall(model, flags, bare=True, root=path) if path.is_dir() else llama_server(path, model, slots, CONTEXT) as served:
        yield served


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="model file  [default: the one that pull_llama.sh fetches]")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", type=Path, help="a checkout of Townhall, or llama.cpp's llama-server")
    parser.add_argument("--no-long", action="store_true", help="leave the prompt of 4,000 tokens out")
    options = parser.parse_args()
    model, most = ChatOptions(model=options.model).model_path().absolute(), max(options.clients)
    with ExitStack() as stack:
        flags: list[Any] = ["--slots", str(most), "--max-context", str(CONTEXT)]
        subjects: dict[str, Served] = {"here": stack.enter_context(townhall(model, flags, bare=True))}
        if options.against:
            subjects[options.against.name[:11]] = stack.enter_context(other(options.against.absolute(), model, most))
        found: dict[str, dict[int, list[tuple[float, list[float]]]]] = {name: {n: [] for n in options.clients} for name in subjects}
        long: dict[str, list[float]] = {name: [] for name in subjects}
        measure: Callable[..., Any] = asyncio.run
        for served in subjects.values():
            measure(side_by_side(served, 1, -1))
        for seed in range(options.rounds):
            for name, served in subjects.items():
                for clients in options.clients:
                    found[name][clients].append(measure(side_by_side(served, clients, seed)))
                if not options.no_long:
                    long[name].append(measure(beside_a_long_prompt(served, seed)))
    print(HEADER)
    for name in subjects:
        report(name, found[name], long[name])


if __name__ == "__main__":
    main()
