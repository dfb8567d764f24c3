"""Chooses the work-groups of the products of one token by timing them on the device, and keeps the choice on disk.

A card's best work-group depends on how many multiprocessors, how much cache and which driver it has: a table would be right for one of
them. What is measured is a product over the model's own weights, layer after layer, as a decode step reads them: more than the card's
caches hold.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tinygrad import Tensor, TinyJit
from tinygrad.device import Device

from ext.tinygrad import cache_files
from ext.tinygrad.errors import TownhallError
from ext.tinygrad.graph.profile import say
from ext.tinygrad.kernels.gpu.gpu_source import FOLDER
from ext.tinygrad.kernels.gpu.tuning import DecodeShape, Tuning

REPLAYS = 5


def seconds(device: str, launches: Callable[[], Sequence[Tensor]], clock: Callable[[], float] = time.perf_counter) -> float:
    """Of the launches that a function makes, captured once and replayed: the mean of REPLAYS.

    Raises what the device raises where it refuses them."""

    def run() -> list[Tensor]:
        results = list(launches())
        Tensor.realize(*results)
        return results

    jit, opened = TinyJit(run), Device[device]
    jit.cnt = 1  # every buffer is there: capture at once
    jit()
    jit()
    opened.synchronize()
    started = clock()
    for _ in range(REPLAYS):
        jit()
    opened.synchronize()
    return (clock() - started) / REPLAYS


LAYERS = 8  # of a model's that a measurement goes over
MOST_SLOTS, MOST_SPLITS, MOST_LOADS = 8, 16, 8


class Tuner:
    """The shapes known for one device: from the disk, or measured here."""

    def __init__(self, device: str, tuning: Tuning, clock: Callable[[], float] = time.perf_counter):
        self.device, self.tuning, self._clock = device, tuning, clock
        self.path = cache_files.folder("tuning") / f"{identity(device, tuning)}.json"
        self.shapes, self._finished = _load(self.path)

    def choose(
        self,
        key: str,
        default: DecodeShape,
        candidates: Sequence[DecodeShape],
        run: Callable[[DecodeShape], Sequence[Tensor]],
        until: float,
    ) -> DecodeShape:
        """The fastest of the candidates and the default by time of `run`, which launches a product with a shape for several layers.

        Begins no measurement after `until` (by the clock); what was found by then is kept, the rest is tried when there is time again."""
        if key in self._finished or self._clock() >= until:
            return self.shapes.get(key, default)
        best, fastest = default, self.seconds(run, default)
        for shape in candidates:
            if self._clock() >= until:
                break
            taken = self.seconds(run, shape)
            say(f"{key}: {shape} takes {taken * 1e6:.1f} µs, {best} {fastest * 1e6:.1f} µs")
            if taken < fastest:
                best, fastest = shape, taken
        else:
            self._finished.add(key)
        self.shapes[key] = best
        return best

    def seconds(self, run: Callable[[DecodeShape], Sequence[Tensor]], shape: DecodeShape) -> float:
        """Of one run with this shape; infinite where the device refuses it (too many registers, too much local memory)."""
        try:
            return seconds(self.device, lambda: run(shape), self._clock)
        except (RuntimeError, TownhallError) as error:
            say(f"{shape} cannot be launched: {error}")
            return math.inf

    def save(self) -> None:
        """Keep what is known; a disk that cannot be written costs the next start its time, nothing else."""
        stored = {key: [shape.slots, shape.splits, shape.loads] for key, shape in sorted(self.shapes.items())}
        try:
            with cache_files.written(self.path) as part:
                part.write_text(json.dumps({"shapes": stored, "finished": sorted(self._finished)}, indent=1))
        except OSError as error:
            say(f"work-groups are not kept: {error}")


def identity(device: str, tuning: Tuning) -> str:
    """Sixteen hex digits that differ where a measurement would: device, driver, what the kernels are made of."""
    from ext.tinygrad.backend import describe_device

    backend = describe_device(device)
    sources = [path.read_bytes() for path in sorted(FOLDER.iterdir())]
    parts = [repr((backend.name, backend.driver, tuning)).encode(), *sources]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def candidates(default: DecodeShape, most_warps: int, most_items: int) -> list[DecodeShape]:
    """Other shapes, those nearest to the default first; `most_warps` can share a row before one is left without columns."""

    def powers(most: int) -> list[int]:
        return [1 << i for i in range(most.bit_length())]

    shapes = [
        DecodeShape(default.slots * slots, splits, loads)
        for slots in (1, 2, 4)
        for splits in powers(min(MOST_SPLITS, most_warps))
        for loads in powers(min(MOST_LOADS, max(1, most_warps // splits)))
        if default.slots * slots <= MOST_SLOTS
    ]

    def distance(shape: DecodeShape) -> int:
        pairs = ((shape.slots, default.slots), (shape.splits, default.splits), (shape.loads, default.loads))
        return sum(abs(a.bit_length() - b.bit_length()) for a, b in pairs)

    fitting = [shape for shape in shapes if 64 <= shape.items <= min(most_items, 512) and shape != default]
    return sorted(fitting, key=distance)


def _load(path: Path) -> tuple[dict[str, DecodeShape], set[str]]:
    """What a file holds; nothing where it is missing or was written by something else."""
    try:
        stored = json.loads(path.read_text())
        shapes = {str(key): DecodeShape(*map(int, values)) for key, values in stored["shapes"].items()}
        assert all(shape.slots > 0 and shape.splits > 0 and shape.loads > 0 and shape.items <= 1024 for shape in shapes.values())
        return shapes, set(map(str, stored["finished"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError):
        return {}, set()
