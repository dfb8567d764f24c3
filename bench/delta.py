"""Deltas applied: GB/s, beside what its parts take alone and so the most that they leave room for. Files are in the page cache.

python -m bench.delta [--gb 2]

The first figure of a line is GB per second of processor time, which other processes and the disk's writes leave alone; the second is by
the clock. A file that is written is soon as fast as the disk, and on a virtual machine no faster than its host gives memory.
"""

import argparse
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from app.models.llama.checkpoint.cores import cores
from app.models.llama.deltas import delta_file, xor
from app.models.llama.deltas.xor import BLOCK, Output
from bench.fresh_memory import claim

GB = 1e9


def measured(what: str, nbytes: int, work: Callable[[], object], made: Path | None = None, repeat: int = 3) -> float:
    """The least processor seconds per GB of some runs; what they have `made` is taken away before each."""
    processor, clock = float("inf"), float("inf")
    for _ in range(repeat):
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
        os.sync()  # writers wait when much has been written that is on no disk yet
        claim(2 * nbytes)
        started = time.process_time(), time.perf_counter()
        work()
        processor, clock = min(processor, time.process_time() - started[0]), min(clock, time.perf_counter() - started[1])
    print(f"{what:<42}{nbytes / processor / GB:6.2f}{nbytes / clock / GB:8.2f}", flush=True)
    return processor * GB / nbytes


def fill(path: Path, nbytes: int, seed: int) -> Path:
    block = np.random.default_rng(seed).bytes(1 << 24)
    with path.open("wb") as file:
        for at in range(0, nbytes, len(block)):
            file.write(block[: nbytes - at])
    return path


def parts(base: Path, encrypted: Path, target: Path, nbytes: int) -> float:
    """Processor seconds per GB that one file's XOR, digest and write take one after another."""
    chunks = range(0, nbytes, xor.CHUNK)
    result = np.ones(xor.CHUNK, np.uint8)
    source, other = xor.mapped(encrypted)[delta_file.DIGEST :], xor.Repeated(xor.mapped(base))

    def exclusive_or() -> None:
        for at in chunks:
            chunk = source[at : at + xor.CHUNK]
            other.xor(chunk, at, result[: len(chunk)])

    def digest() -> None:
        hashed = hashlib.sha256()
        for _ in chunks:
            hashed.update(result.data)

    def write() -> None:
        with Output(target) as output:
            for _ in chunks:
                output.room(xor.CHUNK)[::BLOCK] = 1  # pages of zeros may cost less

    seconds = [measured(f"  {work.__name__} alone", nbytes, work) for work in (exclusive_or, digest, write)]
    target.unlink()
    return sum(seconds)


def run(folder: Path, nbytes: int) -> None:
    base = fill(folder / "base", nbytes, 0)
    plain = fill(folder / "plain", nbytes, 1)
    halves = [fill(folder / f"half{n}", nbytes // 2, 2 + n) for n in range(2)]
    made = delta_file.make(base, [plain], folder / "enc")
    made_halves = delta_file.make(base, halves, folder / "enc")

    def numpy_xor() -> None:
        with made[0].open("rb") as source, base.open("rb") as other, (folder / "x").open("wb") as target:
            source.seek(delta_file.DIGEST)
            while block := source.read(xor.CHUNK):
                target.write((np.frombuffer(block, np.uint8) ^ np.frombuffer(other.read(len(block)), np.uint8)).data)

    def apply(deltas: list[Path]) -> Callable[[], object]:
        return lambda: delta_file.apply(base, deltas, folder / "out")

    print(f"{f'{nbytes / GB:.1f} GB in the page cache, {cores()} cores':<40}{'GB/s of':>8}{'by the':>8}")
    print(f"{'':<40}{'a core':>8}{'clock':>8}")
    affinity = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(affinity)})
    limit = parts(base, made[0], folder / "x", nbytes)
    print(f"  all three: at most                      {1 / limit:8.2f}")
    measured("NumPy XOR of the files, no digest", nbytes, numpy_xor)
    ours = measured("delta apply, one core", nbytes, apply(made), folder / "out")
    os.sched_setaffinity(0, affinity)
    measured("delta apply, one file, all cores", nbytes, apply(made), folder / "out")
    measured("delta apply, two files, all cores", nbytes, apply(made_halves), folder / "out")
    print(f"delta apply reaches {limit / ours:.0%} of what its parts allow on one core")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure how fast deltas are applied.")
    parser.add_argument("--gb", type=float, default=2.0, help="size of the file")
    with tempfile.TemporaryDirectory() as name:
        run(Path(name), int(parser.parse_args().gb * GB))
