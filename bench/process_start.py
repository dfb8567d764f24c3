"""Process start to first token, in fresh processes: with empty caches, and as every start after the first."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.worker import ROOT, BenchError, adapter_arguments

PROMPT_TOKENS = 30
LONGEST = 300.0  # seconds; no start takes that long


def measure(
    model: Path,
    against: bool,
    repeats: int,
    cold: bool,
    say: Callable[[str], None] = lambda text: None,
    adapters: Sequence[tuple[Path, float]] = (),
    kv: str = "f16",
) -> dict[str, Any]:
    """Seconds by phase; cold starts have empty compile, weight and conversation caches but files that the system has read before.

    `kv`: what both keep of the context."""
    out: dict[str, Any] = {"prompt_tokens": PROMPT_TOKENS}
    if cold:
        with empty_caches() as environment:
            first = first_token("townhall", model, environment, adapters, kv)
        out["first ever"] = first
        say(f"first start ever: first token after {first['first token']:.2f} s")
    first_token("townhall", model, adapters=adapters, kv=kv)  # fills the caches, where that was not done before
    runs: dict[str, list[dict[str, float]]] = {"townhall": [], **({"llama.cpp": []} if against else {})}
    for _ in range(repeats):
        for name, marks in runs.items():
            marks.append(first_token(name, model, adapters=adapters if name == "townhall" else (), kv=kv))
    for name, marks in runs.items():
        out[name] = {phase: round(statistics.median(run[phase] for run in marks), 3) for phase in marks[0]}
        say(f"later starts: {name}'s first token after {out[name]['first token']:.2f} s")
    return out


class empty_caches:
    """An environment in which nothing has been compiled, packed or read yet."""

    def __enter__(self) -> dict[str, str]:
        self.folder = tempfile.mkdtemp(prefix="townhall-bench-")
        return {"XDG_CACHE_HOME": self.folder, "CACHEDB": str(Path(self.folder) / "kernels.db")}

    def __exit__(self, *exception: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def first_token(
    subject: str,
    model: Path,
    environment: Mapping[str, str] | None = None,
    adapters: Sequence[tuple[Path, float]] = (),
    kv: str = "f16",
) -> dict[str, float]:
    """Seconds from the start of a process to the end of each of its phases; the last is called "first token"."""
    process = _spawn([sys.executable, "-m", "bench.first_token", subject, str(model), kv, *adapter_arguments(adapters)], environment)
    try:
        output, errors = process.communicate(timeout=LONGEST)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise BenchError(f"{subject} had no token after {LONGEST:.0f} s") from None
    if process.returncode:
        last = (errors.strip().splitlines() or ["it says nothing"])[-1]
        raise BenchError(f"{subject} ended with code {process.returncode} before its first token: {last}")
    marks: dict[str, float] = json.loads(output.strip().splitlines()[-1])
    return marks


def _spawn(command: list[str], environment: Mapping[str, str] | None) -> "subprocess.Popen[str]":
    # the clock is the system's, the same in the child
    started = {"TOWNHALL_STARTED": repr(time.monotonic())}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=surroundings(environment) | started)


def surroundings(environment: Mapping[str, str] | None) -> dict[str, str]:
    """The environment of a start: ours with these changes, able to import us, and to keep bytecode as an installed package has it."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**inherited, **(environment or {}), "PYTHONPATH": paths}
