"""How soon the page is there: python -m bench.page_paint [--repeats 5] [--model PATH]

In a real Chromium (`bash tests/web/chromium.sh` prints which): from a navigation to the first paint, to its first words, and to the box in
which one types, on loopback, with and without the browser's cache; from the start of `townhall web` over a model whose caches are warm to
the same; and the resident memory of a server over a double, which has no model. Needs the extra [test-web].
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, Page, sync_playwright

from bench.served import ROOT, free_port
from townhall.cli.chat_options import ChatOptions

LONGEST = 120.0  # seconds
MB = 1_000_000
FIRST_PAINT, STARTED, RESIDENT = 0.3, 1.5, 80 * MB  # what the page is held to
PAINTS = (
    "() => [performance.timeOrigin, ...['first-paint', 'first-contentful-paint'].map(n => performance.getEntriesByName(n)[0]?.startTime)]"
)


@dataclass(frozen=True)
class Paints:
    """When something was seen, in seconds since the epoch."""

    asked: float  # the navigation began
    first: float  # anything but the background
    words: float  # text or a picture
    box: float  # the box in which one types was there: a script finds it, so this is a little late


def look(page: Page, url: str) -> Paints:
    """Go there and see."""
    page.goto(url, wait_until="commit")
    page.get_by_role("textbox", name="Message", exact=True).wait_for(timeout=LONGEST * 1000)
    box = time.time()
    page.wait_for_function("() => performance.getEntriesByName('first-contentful-paint').length")
    origin, first, words = (one / 1000 for one in page.evaluate(PAINTS))
    return Paints(origin, origin + first, origin + words, box)


@contextmanager
def running(model: str, home: Path) -> Iterator[tuple[str, float, int]]:
    """(address, when it was started, process id) of `townhall web`, which may not answer yet."""
    port = free_port()
    command = [sys.executable, "-m", "townhall", "web", "--no-open", "--model", model, "--port", port, "--log-to", str(home)]
    # bytecode as an installed package has it
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | {"PYTHONPATH": str(ROOT)}
    started = time.time()
    process = subprocess.Popen(command, cwd=home, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}/", started, process.pid
    finally:
        process.terminate()
        process.wait(60)


def answers(url: str, path: str = "") -> None:
    """Wait until a server does, with 200."""
    ends = time.monotonic() + LONGEST
    while True:
        try:
            if httpx.get(url + path, timeout=10).status_code == 200:
                return
        except httpx.TransportError:
            pass
        if time.monotonic() > ends:
            sys.exit(f"bench.page_paint: {url} does not answer")
        time.sleep(0.002)


def resident(pid: int) -> int:
    """Bytes, as Linux tells them."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def visits(browser: Browser, url: str, repeats: int) -> dict[str, list[Paints]]:
    """A first visit of a browser that has never been there, and a second one of the same."""
    found: dict[str, list[Paints]] = {"first visit": [], "second visit": []}
    for _ in range(repeats):
        context = browser.new_context(locale="en-GB")
        page = context.new_page()
        for kind in found.values():
            kind.append(look(page, url))
            page.goto("about:blank")
        context.close()
    return found


def described(name: str, since: list[float], seen: list[Paints]) -> str:
    """A line: medians, and the range of the first words."""
    rows = [[getattr(one, kind) - start for one, start in zip(seen, since, strict=True)] for kind in ("first", "words", "box")]
    first, words, box = (statistics.median(row) for row in rows)
    return f"{name:<28}{first:>12.3f}{words:>14.3f}{box:>10.3f}   {min(rows[1]):.3f}–{max(rows[1]):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="model file  [default: the one that pull_llama.sh fetches]")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    model = str(ChatOptions(model=options.model).model_path().absolute())
    chromium = subprocess.run(["bash", str(ROOT / "tests/web/chromium.sh")], capture_output=True, text=True, check=True).stdout.strip()
    with tempfile.TemporaryDirectory(prefix="townhall-page-") as folder, sync_playwright() as playwright:
        home = Path(folder)
        alone = ["--no-sandbox"] if os.geteuid() == 0 else []  # root's Chromium has none
        browser = playwright.chromium.launch(executable_path=chromium, args=alone)
        print(f"seconds, medians of {options.repeats}; {browser.browser_type.name} {browser.version}")
        print(f"{'':<28}{'first paint':>12}{'first words':>14}{'box':>10}   range of the first words")
        with running("fake:echo", home) as (url, _, pid):
            answers(url, "health")
            visits(browser, url, 1)
            without = resident(pid)
            found = visits(browser, url, options.repeats)
            for name, seen in found.items():
                print(described(f"{name}, server runs", [one.asked for one in seen], seen), flush=True)
        starts: list[float] = []
        seen = []
        for at in range(options.repeats + 1):  # the first one fills caches
            with running(model, home) as (url, started, _):
                page: Any = browser.new_page(locale="en-GB")
                answers(url)
                paints = look(page, url)
                page.close()
                answers(url, "health")
            if at:
                starts.append(started)
                seen.append(paints)
        print(described("process start, warm model", starts, seen))
        painted = statistics.median(one.first - start for one, start in zip(seen, starts, strict=True))
        first = statistics.median(one.first - one.asked for one in found["first visit"])
        print(f"server without a model: {without / MB:.0f} MB resident")
        bounds = (
            (first, FIRST_PAINT, "first paint on loopback"),
            (painted, STARTED, "process start to paint"),
            (without, RESIDENT, "memory"),
        )
        for value, most, what in bounds:
            print(f"{'held  ' if value < most else 'missed'}  {what}: {value / most:.0%} of what it may be")
        browser.close()


if __name__ == "__main__":
    main()
