"""Deltas applied: GB/s, beside what NumPy's XOR alone and SHA-256 alone do on one core. Files are in the page cache.

python -m bench.delta [--gb 2]
"""

import argparse
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from app.models.llama.checkpoint import delta

GB = 1e9


def seconds(work: Callable[[], object], repeat: int = 3) -> float:
    """The best of some runs."""
    best = float("inf")
    for _ in range(repeat):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best


def fill(path: Path, nbytes: int, seed: int) -> Path:
    block = np.random.default_rng(seed).bytes(1 << 24)
    with path.open("wb") as file:
        for at in range(0, nbytes, len(block)):
            file.write(block[: nbytes - at])
    return path


def in_memory() -> None:
    a, b, out = (np.zeros(1 << 28, np.uint8) for _ in range(3))
    print(f"NumPy XOR in memory, one core     {a.nbytes / seconds(lambda: np.bitwise_xor(a, b, out=out)) / GB:6.2f} GB/s")
    print(f"SHA-256 in memory, one core       {a.nbytes / seconds(lambda: hashlib.sha256(a.data)) / GB:6.2f} GB/s")


def run(folder: Path, nbytes: int) -> None:
    in_memory()
    base = fill(folder / "base", nbytes, 0)
    plain = fill(folder / "plain", nbytes, 1)
    halves = [fill(folder / f"half{n}", nbytes // 2, 2 + n) for n in range(2)]
    made = delta.make(base, [plain], folder / "enc")
    made_halves = delta.make(base, halves, folder / "enc")

    def xor_files() -> None:
        with made[0].open("rb") as source, base.open("rb") as other, (folder / "x").open("wb") as target:
            source.seek(delta.DIGEST)
            while block := source.read(delta.CHUNK):
                x, y = np.frombuffer(block, np.uint8), np.frombuffer(other.read(len(block)), np.uint8)
                target.write((x ^ y).data)

    def apply(deltas: list[Path]) -> Callable[[], object]:
        def work() -> None:
            shutil.rmtree(folder / "out", ignore_errors=True)
            delta.apply(base, deltas, folder / "out")

        return work

    def chunks_only() -> None:
        """The work of delta.apply without its digest: read, XOR, write, chunk by chunk on one thread."""
        buffers = delta._Buffers()
        with ExitStack() as stack:
            source, other = (stack.enter_context(path.open("rb", buffering=0)) for path in (made[0], base))
            target = stack.enter_context((folder / "x").open("wb", buffering=0))
            for at in range(0, nbytes, delta.CHUNK):
                buffers.fill(source.fileno(), delta.DIGEST + at, other.fileno(), at, nbytes, min(delta.CHUNK, nbytes - at))
                delta._write_all(target.fileno(), buffers.result)

    print(f"files of {nbytes / GB:.1f} GB in the page cache, {delta.cores()} cores")
    print(f"NumPy XOR of the files, one core  {nbytes / seconds(xor_files) / GB:6.2f} GB/s")
    print(f"read, XOR, write, one core        {nbytes / seconds(chunks_only) / GB:6.2f} GB/s")
    affinity = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(affinity)})
    print(f"delta apply, one core             {nbytes / seconds(apply(made)) / GB:6.2f} GB/s")
    os.sched_setaffinity(0, affinity)
    print(f"delta apply, one file             {nbytes / seconds(apply(made)) / GB:6.2f} GB/s")
    print(f"delta apply, two files            {nbytes / seconds(apply(made_halves)) / GB:6.2f} GB/s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure how fast deltas are applied.")
    parser.add_argument("--gb", type=float, default=2.0, help="size of the file")
    with tempfile.TemporaryDirectory() as name:
        run(Path(name), int(parser.parse_args().gb * GB))
