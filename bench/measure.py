"""The run: every case in alternating samples of both runtimes, so that what the machine does in the meantime hits both."""

import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench import machine, process_start
from bench.worker import Worker
from ext.tinygrad.graph.pool import allowed_cpus, default_threads

OURS, PEER = "townhall", "llama.cpp"
CAPACITY = 1024  # of both caches
DECODE_TOKENS = 24  # of a sample; a position of 1000 leaves no more
WARM_UP = 4  # tokens decoded before the first sample of a case
PROFILED_CONTEXT = 512

Say = Callable[[str], None]


@dataclass(frozen=True)
class Case:
    """`tokens` ids at once (prefill), or one at a time from position `context` on (decode)."""

    kind: str  # "prefill" or "decode"
    threads: int
    tokens: int
    context: int = 0
    busy: bool = False  # another process keeps a core busy

    @property
    def name(self) -> str:
        what = f"prefill of {self.tokens}" if self.kind == "prefill" else f"decode at {self.context}"
        return f"{what}, {self.threads} thread{'s' if self.threads > 1 else ''}{', one core busy' if self.busy else ''}"

    def sample(self, worker: Worker, tokens: int | None = None) -> float:
        """Tokens a second, over fewer tokens than the case has if so asked."""
        n = tokens or self.tokens
        return n / (worker("prefill", n) if self.kind == "prefill" else worker("decode", self.context, n))


@dataclass
class Result:
    """One case's samples by subject, in the order in which they alternated."""

    case: Case
    samples: dict[str, list[float]]
    plain_read: list[float] = field(default_factory=list)  # bytes a second, measured between the samples

    @property
    def ratios(self) -> list[float]:
        """Ours to the peer's, pair by pair."""
        return [a / b for a, b in zip(self.samples.get(OURS, []), self.samples.get(PEER, []))]

    def to_json(self) -> dict[str, Any]:
        case = self.case
        out: dict[str, Any] = {
            "name": case.name,
            "kind": case.kind,
            "threads": case.threads,
            "tokens": case.tokens,
            "context": case.context,
            "busy": case.busy,
            "tokens_per_second": {name: summary(values) for name, values in self.samples.items()},
        }
        if self.ratios:
            out["ratio"] = summary(self.ratios)
        return out


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Median, spread and the samples themselves."""
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
        "samples": [round(value, 3) for value in values],
    }


@dataclass(frozen=True)
class BenchPlan:
    """What to measure, and for how long at most."""

    model: Path
    against: bool
    threads: tuple[int, ...] = ()  # none: 1, and as many as there are cores
    contexts: tuple[int, ...] = (32, 512, 1000)
    prefill: int = 512
    alternations: int = 7
    busy: bool = True
    starts: int = 3  # warm starts; 0 leaves the starts out
    cold: bool = True
    seconds: float = 420.0
    adapters: tuple[tuple[Path, float], ...] = ()  # with their scales, laid over our side's model
    kv: str = "f16"  # what both keep of the context

    def quick(self) -> "BenchPlan":
        """The same in less than two minutes: fewer samples, contexts and starts."""
        alternations = min(3, self.alternations)
        return replace(self, contexts=self.contexts[:2], alternations=alternations, starts=1, cold=False, seconds=90.0)


def run(plan: BenchPlan, say: Say = lambda text: print(text, file=sys.stderr)) -> dict[str, Any]:
    """Measure and return everything as JSON would have it."""
    deadline = time.monotonic() + plan.seconds
    out: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d %H:%M:%S"),
        "machine": machine.describe(),
        "model": {"file": plan.model.name, "bytes": size_of(plan.model)},
        "alternations": plan.alternations,
        "kv": plan.kv,
        **({"adapters": [f"{path}:{scale}" for path, scale in plan.adapters]} if plan.adapters else {}),
    }
    if plan.starts:
        say("process start to first token …")
        out["start"] = process_start.measure(plan.model, plan.against, plan.starts, plan.cold, say, plan.adapters, plan.kv)
    with contextlib.ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for name in [OURS, *([PEER] if plan.against else [])]:
            workers[name] = Worker(name, plan.model, CAPACITY, adapters=plan.adapters if name == OURS else (), kv=plan.kv)
            stack.callback(workers[name].close)
        out["subjects"] = {name: worker.about for name, worker in workers.items()}
        cases = cases_of(plan, workers[OURS].about["context_length"])
        results = []
        for i, case in enumerate(cases):
            share = (deadline - time.monotonic()) / (len(cases) - i)
            results.append(measure(case, workers, plan.alternations, share))
            say(line(results[-1]))
        out["cases"] = [result.to_json() for result in results]
        out["bandwidth"] = [entry for result in results if (entry := bandwidth(result, workers[OURS].about))]
        out["peak_memory"] = {name: worker("peak_memory") for name, worker in workers.items()}
        workers[OURS]("threads", max(case.threads for case in cases))
        context = min(PROFILED_CONTEXT, max(case.context for case in cases))
        out["sampling"] = workers[OURS]("sampling", context, DECODE_TOKENS)
        out["kernels"] = {
            "threads": max(case.threads for case in cases),
            "context": context,
            "decode": workers[OURS]("breakdown", 1, context),
            "prefill of 128": workers[OURS]("breakdown", 128, context),
        }
    out["machine"]["load_at_the_end"] = machine.load()
    return out


def cases_of(plan: BenchPlan, context_length: int) -> list[Case]:
    """Prefills before decodes and contexts upwards, so that caches are filled once."""
    threads = plan.threads or tuple(sorted({1, default_threads()}, reverse=True))
    room = min(CAPACITY, context_length)
    contexts = [context for context in plan.contexts if context + DECODE_TOKENS <= room]
    tokens = min(plan.prefill, room)
    cases = [Case("prefill", n, tokens) for n in threads]
    cases += [Case("decode", n, DECODE_TOKENS, context) for n in threads for context in contexts]
    if plan.busy and max(threads) > 1 and contexts:
        # without the longest context: a crowded core takes time enough
        cases += [Case("decode", max(threads), DECODE_TOKENS, context, busy=True) for context in contexts[:2]]
    return cases


def measure(case: Case, workers: dict[str, Worker], alternations: int, seconds: float) -> Result:
    """A B A B …, as many as asked for or as the seconds allow; at least one of each."""
    deadline = time.monotonic() + seconds
    result = Result(case, {name: [] for name in workers})
    for worker in workers.values():
        worker("threads", case.threads)
    with _busy_core() if case.busy else contextlib.nullcontext():
        # what first calls set up is no part of the speed; a second prefill has passes of sizes that a first one, of unknown speed, has not
        for worker in workers.values():
            for _ in range(2 if case.kind == "prefill" else 1):
                case.sample(worker, None if case.kind == "prefill" else WARM_UP)
        tokens = case.tokens
        if case.kind == "decode":
            per_token = sum(1 / case.sample(worker, WARM_UP) for worker in workers.values())
            tokens = max(WARM_UP, min(tokens, int((deadline - time.monotonic()) / alternations / per_token)))
        for _ in range(alternations):
            for name, worker in workers.items():
                result.samples[name].append(case.sample(worker, tokens))
            if case.kind == "decode" and not case.busy:
                result.plain_read.append(workers[OURS]("plain_read"))
            if time.monotonic() > deadline:
                break
    return result


def bandwidth(result: Result, about: dict[str, Any]) -> dict[str, Any] | None:
    """What decode moves for a token, a second, and as a share of a plain read; None where it is no decode, or unknown."""
    if not result.plain_read or not min(result.plain_read):
        return None
    case, ours = result.case, statistics.median(result.samples[OURS])
    moved = about["decode_weight_bytes"] + about["kv_bytes_per_position"] * (case.context + case.tokens / 2)
    plain = statistics.median(result.plain_read)
    # pair by pair: a read and a decode of the same moment
    shares = [moved * rate / read for rate, read in zip(result.samples[OURS], result.plain_read)]
    return {
        "threads": case.threads,
        "context": case.context,
        "bytes_per_token": int(moved),
        "gb_per_second": round(moved * ours / 1e9, 2),
        "plain_read_gb_per_second": round(plain / 1e9, 2),
        "share": round(statistics.median(shares), 3),
    }


def line(result: Result) -> str:
    """A case for people."""
    parts = [f"{result.case.name:<36}"]
    for name, values in result.samples.items():
        parts.append(f"{name} {statistics.median(values):7.1f} ({min(values):.0f}–{max(values):.0f})")
    if result.ratios:
        parts.append(f"{statistics.median(result.ratios):5.2f} ×")
    return "  ".join(parts)


def size_of(model: Path) -> int:
    """Bytes on disk."""
    return sum(file.stat().st_size for file in model.rglob("*") if file.is_file()) if model.is_dir() else model.stat().st_size


@contextlib.contextmanager
def _busy_core() -> Iterator[None]:
    """Another process that computes all the time, on the last of the processors that we may use."""
    cpu = max(allowed_cpus())
    code = f"import os\nif hasattr(os, 'sched_setaffinity'): os.sched_setaffinity(0, {{{cpu}}})\nwhile True: pass"
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        time.sleep(0.3)
        yield
    finally:
        process.kill()
        process.wait()
