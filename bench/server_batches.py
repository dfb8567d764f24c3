"""Replies side by side: python -m bench.server_batches [--clients 1 4 16] [--against PATH] [--rounds 3] [--threads N]

Each client streams one reply of 64 tokens to a prompt of about 64, all at the same time: tokens per second in all, and the time between
tokens. Then a prompt of 4,000 tokens arrives while three others are answered: by how much their next token is late. PATH is another
checkout of Townhall, such as a git worktree of an earlier commit, or a llama-server; rounds alternate, both have as many threads, and
ratios are of medians. Where a llama-batched-bench lies beside the llama-server, each round runs it, too.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.models.llama.checkpoint import open_checkpoint
from bench.recorded_stream import Recording, record
from bench.served import Served, at, named_server, townhall
from ext.tinygrad.graph.pool import thread_count
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
    held: list[int] = field(default_factory=list)  # tokens of each piece
    tokens: int = 0

    @property
    def gaps(self) -> list[float]:
        """Seconds from each token to the next; of a piece of several tokens each has its share."""
        waits = zip(self.pieces, self.pieces[1:], self.held[1:], strict=False)
        return [(later - earlier) / held for earlier, later, held in waits for _ in range(held)]


def times_of(recording: Recording, count: Callable[[str], int]) -> StreamTimes:
    """`count` says how many tokens a text has: a piece may be several, for white space waits for what follows it. Those of the reply are
    counted by the server where it tells, else by pieces."""
    times = StreamTimes(recording.asked)
    for arrived, chunk in recording.chunks():
        if text := chunk["choices"] and chunk["choices"][0]["delta"].get("content"):
            times.pieces.append(arrived)
            times.held.append(max(1, count(text)))
        times.tokens = (chunk.get("usage") or {}).get("completion_tokens", times.tokens)
    times.tokens = times.tokens or len(times.pieces)
    return times


def reply(served: Served, prompt: str, tokens: int, seed: int) -> Coroutine[Any, Any, Recording]:
    """One reply as it comes."""
    return record(served, {"messages": [{"role": "user", "content": prompt}], "max_tokens": tokens, "seed": seed, "temperature": 0.8})


async def side_by_side(served: Served, clients: int, seed: int, count: Callable[[str], int]) -> tuple[float, list[float]]:
    """(tokens per second of all together, seconds between tokens)."""
    started = time.perf_counter()
    prompts = [f"{seed} {clients} {n}. {PROMPT}" for n in range(clients)]  # no cache has any of them
    recordings = await asyncio.gather(*(reply(served, prompt, REPLY, n) for n, prompt in enumerate(prompts)))
    seconds, replies = time.perf_counter() - started, [times_of(one, count) for one in recordings]
    return sum(one.tokens for one in replies) / seconds, [gap for one in replies for gap in one.gaps]


async def beside_a_long_prompt(served: Served, seed: int, count: Callable[[str], int]) -> float:
    """The longest time that a token of three replies took, from the long prompt's arrival to its first token."""
    prompts = [f"{seed} {n}. {PROMPT}" for n in range(3)]
    others = [asyncio.create_task(reply(served, prompt, LONG_REPLY, n)) for n, prompt in enumerate(prompts)]
    await asyncio.sleep(1)
    recorded = await reply(served, f"{seed} " + "storm and ship " * (LONG_PROMPT // 3), 2, 0)
    ended = time.perf_counter()
    long, replies = times_of(recorded, count), [times_of(one, count) for one in await asyncio.gather(*others)]
    first = long.pieces[0] if long.pieces else ended
    spans = [span for one in replies for span in zip(one.pieces, one.pieces[1:], one.held[1:], strict=False)]
    return max(((b - a) / held for a, b, held in spans if b > long.asked and a < first), default=0.0)


@dataclass
class ServerFigures:
    """Of one server, by the number of clients: a round is (tokens per second, seconds between tokens)."""

    rounds: dict[int, list[tuple[float, list[float]]]]
    long: list[float] = field(default_factory=list)  # of each round: the latest token beside a long prompt

    def rate(self, clients: int) -> float:
        return statistics.median(rate for rate, _ in self.rounds[clients])

    def between(self, clients: int, percent: int) -> float:
        return at([gap for _, gaps in self.rounds[clients] for gap in gaps], percent)


def batched(binary: Path, model: Path, clients: Sequence[int], threads: int) -> dict[int, float]:
    """Tokens per second of so many sequences in llama-batched-bench, no server around them: prompts and replies as long as here."""
    most = max(clients)
    sizes = ["-npp", str(REPLY), "-ntg", str(REPLY), "-npl", ",".join(map(str, clients)), "-c", str(2 * REPLY * most), "-ub", "512"]
    command = [str(binary), "-m", str(model), *sizes, "-t", str(threads), "-tb", str(threads), "--output-format", "jsonl"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600)
    found = [json.loads(line) for line in (run.stdout + run.stderr).splitlines() if line.startswith("{") and '"speed_tg"' in line]
    if run.returncode or len(found) < len(clients):
        sys.exit(f"bench.server_batches: {binary} gave no figures: {run.stderr.strip()[-300:]}")
    return {one["pl"]: one["pl"] * one["tg"] / one["t"] for one in found}


def report(found: dict[str, ServerFigures], bare: dict[int, list[float]]) -> None:
    """A line for each server and number of clients, and ratios of the first server to the others."""
    print(HEADER)
    for name, measured in found.items():
        alone = measured.rate(min(measured.rounds)) if measured.rounds else 0.0
        for clients in measured.rounds:
            rate, between = measured.rate(clients), [1000 * measured.between(clients, percent) for percent in (50, 95, 99)]
            print(f"{name:<12}{clients:>8}{rate:>12.1f}{rate / alone:>10.2f}" + "".join(f"{one:>10.1f}" for one in between))
        if measured.long:
            late = f"{1000 * statistics.median(measured.long):.0f} ms (at most {1000 * max(measured.long):.0f})"
            print(f"{name:<12} beside a prompt of {LONG_PROMPT} tokens the latest token took {late}")
    for clients, rates in bare.items():
        print(f"{'batched':<12}{clients:>8}{statistics.median(rates):>12.1f}  llama-batched-bench")
    first = next(iter(found.values()))
    for clients in first.rounds:
        ratios = [f"{first.rate(clients) / other.rate(clients):.2f} times {name}" for name, other in list(found.items())[1:]]
        ratios += [f"{first.rate(clients) / statistics.median(bare[clients]):.2f} times llama-batched-bench"] if bare else []
        ratios += [
            f"p95 between tokens {first.between(clients, 95) / other.between(clients, 95):.2f} times {name}'s"
            for name, other in list(found.items())[1:]
        ]
        if ratios:
            print(f"{clients:>2} clients: {', '.join(ratios)}")


HEADER = f"{'server':<12}{'clients':>8}{'tokens/s':>12}{'of alone':>10}{'p50 ms':>10}{'p95 ms':>10}{'p99 ms':>10}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="model file  [default: the one that pull_llama.sh fetches]")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", type=Path, help="a checkout of Townhall, or llama.cpp's llama-server, which needs an idle machine")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no round after so many")
    parser.add_argument("--threads", type=int, help="of each server  [default: as Townhall chooses]")
    parser.add_argument("--no-long", action="store_true", help="leave the prompt of 4,000 tokens out")
    parser.add_argument("--only-long", action="store_true", help="nothing but that")
    options = parser.parse_args()
    model, most = ChatOptions(model=options.model).model_path().absolute(), max(options.clients)
    threads: int = options.threads or thread_count()
    tokenizer = open_checkpoint(model).tokenizer()

    def count(text: str) -> int:
        return len(tokenizer.encode(text, bos=False, special=False))

    against = options.against.absolute() if options.against else None
    ends, done = time.monotonic() + 60 * options.minutes, 0
    with ExitStack() as stack:
        flags: list[Any] = ["--slots", str(most), "--max-context", str(CONTEXT)]
        subjects: dict[str, Served] = {"here": stack.enter_context(townhall(model, flags, bare=True, threads=threads))}
        if against:
            other = stack.enter_context(named_server(against, model, most, CONTEXT, threads))
            subjects[other.name] = other
        bench = against.parent / "llama-batched-bench" if against and against.is_file() else None
        found = {name: ServerFigures({n: [] for n in options.clients}) for name in subjects}
        bare: dict[int, list[float]] = {n: [] for n in options.clients} if bench and bench.exists() and not options.only_long else {}
        measure: Callable[..., Any] = asyncio.run
        for served in subjects.values():  # a slot's memory comes from the system once, at its first use: 60 ms and more
            measure(side_by_side(served, most, -1, count))
        for seed in range(options.rounds):
            if done and time.monotonic() > ends:
                break
            done += 1
            for name, served in subjects.items():
                if not options.only_long:
                    for clients in options.clients:
                        found[name].rounds[clients].append(measure(side_by_side(served, clients, seed, count)))
                if not options.no_long:
                    found[name].long.append(measure(beside_a_long_prompt(served, seed, count)))
            if bare and bench:
                for clients, rate in batched(bench, model, options.clients, threads).items():
                    bare[clients].append(rate)
    if options.only_long:
        for measured in found.values():
            measured.rounds.clear()
    print(f"{threads} threads, replies of {REPLY} tokens, medians of {done} alternating rounds")
    report(found, bare)


if __name__ == "__main__":
    main()
