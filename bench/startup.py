"""Where a start goes: python -m bench.startup [--repeats 5] [--imports]

Phases of process start → first token of a 30-token prompt (first start ever, later starts, llama.cpp), and of process start → the line
where a person types, as `townhall chat` has it at a terminal; --imports lists the modules that took longest to import.
"""

import argparse
import os
import pty
import re
import selectors
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from bench import peer, process_start
from bench.worker import ROOT
from townhall.cli.chat_options import ChatOptions

CUE, KEY = b"User: ", b"q"
LAP = re.compile(r"^(.+?) +([0-9.]+) s +[0-9.]+%", re.MULTILINE)  # of what --profile prints
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\r")


def prompt_ready(model: Path, environment: Mapping[str, str] | None = None) -> dict[str, float]:
    """Seconds from the start of `townhall chat` at a terminal: until the "prompt" shows, "in all" until it answers a key, and for what."""
    master, slave = pty.openpty()
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "townhall", "chat", "--no-log", "--profile", "--model", str(model)],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=process_start.surroundings(environment) | {"TERM": "xterm"},
        cwd=ROOT,
        start_new_session=True,
    )
    os.close(slave)
    said, prompt, seconds = b"", 0.0, 0.0
    with selectors.DefaultSelector() as selector:
        selector.register(master, selectors.EVENT_READ)
        while selector.select(timeout=process_start.LONGEST):
            try:
                said += os.read(master, 4096)
            except OSError:  # it has left
                break
            if not prompt and CUE in said:
                prompt = time.monotonic() - started
                said = b""
                os.write(master, KEY)
            elif prompt and not seconds and KEY in said:
                seconds = time.monotonic() - started
                os.write(master, b"\x15\x04")  # empty the line, and leave
    os.close(master)
    process.wait(60)
    text = ESCAPES.sub("", said.decode(errors="replace"))
    if not seconds:
        sys.exit(f"townhall chat did not get ready: {text}")
    laps = {name: float(took) for name, took in LAP.findall(text) if name not in ("everything else", "in all")}
    return {"Python and the command line": seconds - sum(laps.values()), **laps, "prompt": prompt, "in all": seconds}


def describe(starts: list[dict[str, float]]) -> str:
    """The medians of several."""
    medians = {name: statistics.median(one.get(name, 0.0) for one in starts) for name in starts[0]}
    whole = [one["in all"] for one in starts]
    parts = "  ".join(f"{name} {took:.2f}" for name, took in medians.items() if name not in ("prompt", "in all"))
    spread = f"({min(whole):.2f}–{max(whole):.2f})"
    return f"shows after {medians['prompt']:.2f} s and answers keys after {medians['in all']:.2f} s {spread}: {parts}"


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

    results = process_start.measure(model, peer.available(), options.repeats, cold=True)
    print(f"seconds since process start, prompt of {results.pop('prompt_tokens')} tokens; medians of {options.repeats} starts")
    for name, marks in results.items():
        print(f"{name:<12}" + "  ".join(f"{phase} {seconds:.2f}" for phase, seconds in marks.items()))
    with process_start.empty_caches() as environment:
        first = prompt_ready(model, environment)
    prompt_ready(model)
    print(f"Stacy's prompt {describe([prompt_ready(model) for _ in range(options.repeats)])}; first ever {first['in all']:.2f} s")
    if options.imports:
        print("milliseconds in a module itself:")
        print("\n".join(f"{milliseconds:8.1f}  {module}" for milliseconds, module in imports()))


if __name__ == "__main__":
    main()
