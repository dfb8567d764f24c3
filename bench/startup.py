"""Where a start goes: python -m bench.startup [--repeats 5] [--imports]

Phases of process start → first token of a 30-token prompt (first start ever, later starts, llama.cpp) and of process start → Stacy's prompt
ready, as `townhall chat` has them; --imports lists the modules that took longest to import.
"""

import argparse
import os
import re
import selectors
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from townhall.bench import peer, start
from townhall.bench.worker import ROOT
from townhall.cli.options import ChatOptions

READY = b"is ready"


def persona_ready(model: Path, environment: Mapping[str, str] | None = None) -> float:
    """Seconds from starting `townhall chat` to its word that the persona is ready."""
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "townhall", "chat", "--model", str(model)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=start.surroundings(environment),
        cwd=ROOT,
    )
    assert process.stdin and process.stderr
    said, seconds = b"", None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stderr, selectors.EVENT_READ)
        while seconds is None and selector.select(timeout=start.LONGEST):
            piece = os.read(process.stderr.fileno(), 4096)
            if not piece:
                break
            said += piece
            seconds = time.monotonic() - started if READY in said else None
    process.stdin.close()
    process.stderr.close()
    process.wait(60)
    if seconds is None:
        sys.exit(f"townhall chat did not get ready: {said.decode(errors='replace')}")
    return seconds


def imports(top: int = 25) -> list[tuple[float, str]]:
    """(milliseconds by itself, module) of what `townhall chat` imports, the slowest first."""
    code = "import townhall.cli.session, app.models.llama, ext.tinygrad.backend"
    run = subprocess.run([sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    rows = re.findall(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)", run.stderr)
    return sorted(((int(us) / 1000, module) for us, module in rows), reverse=True)[:top]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--imports", action="store_true")
    options = parser.parse_args()
    model = ChatOptions(model=options.model).model_path()

    results = start.measure(model, peer.available(), options.repeats, cold=True)
    print(f"seconds since process start, prompt of {results.pop('prompt_tokens')} tokens; medians of {options.repeats} starts")
    for name, marks in results.items():
        print(f"{name:<12}" + "  ".join(f"{phase} {seconds:.2f}" for phase, seconds in marks.items()))
    with start.empty_caches() as environment:
        first = persona_ready(model, environment)
    persona_ready(model)
    later = [persona_ready(model) for _ in range(options.repeats)]
    print(f"Stacy's prompt is ready after {statistics.median(later):.2f} s ({min(later):.2f}–{max(later):.2f}); first ever {first:.2f} s")
    if options.imports:
        print("milliseconds in a module itself:")
        print("\n".join(f"{milliseconds:8.1f}  {module}" for milliseconds, module in imports()))


if __name__ == "__main__":
    main()
