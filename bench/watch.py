"""From a save to the first character of the reply in the file: python -m bench.watch [--saves 50] [--model fake:echo]

`townhall watch` runs as a process of its own beside this one, which saves as editors do and looks at the file as fast as it can. The clock
starts when the save is over and stops when there is more in the file than was saved.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.worker import ROOT

LONGEST = 120.0  # seconds


def by_truncating(path: Path, data: bytes) -> None:
    """As most tools save: the file is emptied and written anew."""
    path.write_bytes(data)


def by_renaming(path: Path, data: bytes) -> None:
    """As vim and many editors save: a new file takes the old one's name."""
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(data)
    os.replace(new, path)


@contextmanager
def watched(path: Path, model: str, flags: list[str]) -> Iterator[None]:
    """`townhall watch` on `path`, ready."""
    command = [sys.executable, "-m", "townhall", "watch", str(path), "--model", model, *flags]
    with tempfile.TemporaryFile("w+") as info:
        process = subprocess.Popen(command, cwd=ROOT, stderr=info)
        try:
            _until(lambda: "is watched" in _all(info.fileno()) or process.poll() is not None)
            if process.poll() is not None:
                sys.exit(f"bench.watch: {_all(info.fileno())}")
            yield
        finally:
            process.terminate()
            process.wait()


def latencies(path: Path, save: Callable[[Path, bytes], None], saves: int) -> list[float]:
    """Seconds from each of so many saves to the first character of its reply. Every save is a new conversation of one turn."""
    took = []
    for n in range(saves):
        text = f"User: Hello, for the {n}th time!\n".encode()
        save(path, text)
        saved = time.perf_counter()
        _until(lambda text=text: len(path.read_bytes()) > len(text))  # type: ignore[misc]
        took.append(time.perf_counter() - saved)
        _until(lambda: path.read_bytes().endswith(b"\nUser: "))
        time.sleep(0.1)  # people do not save in step with anything
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--saves", type=int, default=50)
    parser.add_argument("--model", default="fake:echo", help="a file, or fake:echo")
    args = parser.parse_args()
    flags = ["--count", "8"]
    print(f"from a save to the first character of the reply, {args.model}, {args.saves} saves each")
    for save in (by_truncating, by_renaming):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "talk.chat"
            with watched(path, args.model, flags):
                took = sorted(1000 * seconds for seconds in latencies(path, save, args.saves))
        median, high = statistics.median(took), took[int(0.95 * (len(took) - 1))]
        print(f"{save.__name__.replace('_', ' '):<14} median {median:5.1f} ms, 95 % within {high:5.1f} ms, longest {took[-1]:5.1f} ms")


def _until(holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + LONGEST
    while not holds():
        if time.monotonic() > ends:
            sys.exit(f"bench.watch: nothing came in {LONGEST:.0f} seconds")
        time.sleep(0.0005)


def _all(fd: int) -> str:
    return os.pread(fd, 1 << 16, 0).decode(errors="replace")


if __name__ == "__main__":
    main()
