"""Every reader of untrusted files against damaged and crafted ones, by the thousand; see tests/reference/fuzz.py.

python -m bench.fuzz [--cases 10000] [--seed N] [--only gguf_header,torch_pickle]
"""

import argparse
import json
import secrets
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from app.models.llama.checkpoint.cores import cores
from tests.reference.fuzz import MEMORY, TARGETS

HOUR = 3600


def target(name: str, count: int, seed: int) -> str:
    """The outcome as a line of the table, or what the child said before it died."""
    command, started = [sys.executable, "-m", "tests.reference.fuzz", name, str(count), str(seed)], time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=HOUR)
    except subprocess.TimeoutExpired:
        return f"{name:<20} hangs (seed {seed})"
    if done.returncode or not done.stdout:
        return f"{name:<20} FAILS (seed {seed}, exit code {done.returncode})\n{done.stderr[-4000:]}"
    r = json.loads(done.stdout)
    seconds = time.perf_counter() - started
    return f"{name:<20}{r['cases']:>8,}{r['refused']:>10,}{r['slowest'] * 1000:>13,.0f} ms{r['peak_mb']:>9,} MB{seconds:>8.0f} s"


def main() -> int:
    parser = argparse.ArgumentParser(description="Open damaged and crafted checkpoints by the thousand.")
    parser.add_argument("--cases", type=int, default=10_000, help="of each target")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32), help="default: a new one each time")
    parser.add_argument("--only", help="targets, with commas between")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else list(TARGETS)
    if unknown := set(names) - TARGETS.keys():
        parser.error(f"no target is called {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    print(f"{options.cases:,} cases of each target, seed {options.seed}, at most {MEMORY >> 20:,} MB beyond what a process begins with")
    print(f"{'target':<20}{'cases':>8}{'refused':>10}{'slowest case':>16}{'peak':>12}{'time':>10}")
    failed = False
    with ThreadPoolExecutor(cores()) as pool:
        for line in pool.map(lambda name: target(name, options.cases, options.seed), names):
            failed |= "FAILS" in line or "hangs" in line
            print(line, flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
