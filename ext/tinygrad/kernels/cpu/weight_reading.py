"""How one token's products read weights fastest, by format: PLAIN_READ and FAR_READ of c/tile.h, or as they do by default.

Whether a processor reads ahead better by itself, or brings lines into its first-level cache from far ahead, cannot be asked of it
(docs/notes.md), so it is measured: at the first start on a processor, for each format that a model has enough of, with a product of the
model's own, over the weights of its layers, and kept. Where it cannot be measured, the default stays. No sum changes with it.
"""

import hashlib
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tinygrad import Tensor, TinyJit
from tinygrad.device import Device

from ext.tinygrad import buffers, cache_files
from ext.tinygrad.driver_info import processor_name
from ext.tinygrad.graph.compose import Composite, compose
from ext.tinygrad.graph.cpu_runner import PoolGraph
from ext.tinygrad.graph.pool import Pool
from ext.tinygrad.graph.profile import say
from ext.tinygrad.kernels.cpu.cpu_source import compiler_tag
from ext.tinygrad.kernels.packed.packed_matrix import PackedMatrix
from ext.tinygrad.kernels.protocol import OneTokenProduct

if TYPE_CHECKING:
    from ext.tinygrad.kernels.cpu.cpu_kernels import CPUKernels

PLAIN, FAR = WAYS = "plain", "far"  # without prefetches; prefetched far ahead, into the first-level cache
DEFAULT = "default"

SECONDS = 0.15  # that measuring takes at most, all formats together and without compiling
ROUNDS = 4, 20  # of timed runs, at least and at most
LEAST_BYTES, MOST_BYTES = 8 << 20, 96 << 20  # of the weights that are timed, and at most of what is read between
GAIN = 1.03  # weights are read this much faster than by default, or by default


def faster_readings(kernels: "CPUKernels", products: Sequence[OneTokenProduct], seconds: float | None = None) -> dict[str, str]:
    """The ways by format, where one is faster: what is known of this processor, and what is measured now, in so many seconds at most."""
    path = _path()
    gains = _load(path)
    single = sorted((p for p in products if p.name == "linear"), key=lambda p: sum(w.nbytes for (w,) in p.weights))
    largest = {p.weights[0][0].format.name: p for p in single}  # of each format the product with most of it
    unknown = {name: p for name, p in largest.items() if name not in gains and sum(w.nbytes for (w,) in p.weights) >= LEAST_BYTES}
    if unknown and os.environ.get("TUNE", "1") != "0" and (seconds is None or seconds > 0):
        _compile(kernels, list(unknown.values()))
        share = (SECONDS if seconds is None else min(SECONDS, seconds)) / len(unknown)
        for name, product in unknown.items():
            others = [w for p in products if p is not product for layer in p.weights for w in layer]
            if (found := _measured(kernels, product, others, share)) is not None:
                rates = ", ".join(f"{way} at {gain:.2f} times the rate" for way, gain in found.items())
                say(f"one token's products read {name} {rates}")
                gains[name] = {way: round(gain, 3) for way, gain in found.items()}
        try:
            with cache_files.written(path) as part:
                part.write_text(json.dumps(gains))
        except OSError as error:
            say(f"how weights are read is not kept: {error}")
    return {name: way for name, way in _best(gains).items() if way != DEFAULT}


def known_readings() -> dict[str, str]:
    """The ways by format, the default among them, that were measured on this processor so far."""
    return _best(_load(_path()))


def _best(gains: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    best = {name: max(WAYS, key=lambda way: found[way]) for name, found in gains.items()}
    return {name: way if gains[name][way] > GAIN else DEFAULT for name, way in best.items()}


def _compile(kernels: "CPUKernels", products: Sequence[OneTokenProduct]) -> None:
    """All kernels of each product, side by side: one after the other they take longer than all that is timed."""
    inputs = [_inputs(product) for product in products]

    def run(*_: Tensor) -> Tensor:
        made = [
            _product(kernels, product, way, given) for product, given in zip(products, inputs, strict=True) for way in _readings(product)
        ]
        return made[0].realize(*made[1:])

    _captured(run, inputs[0])


def _readings(product: OneTokenProduct) -> list[dict[str, str]]:
    """What `readings` are for the default, and for each way with the format of the product."""
    return [{}, *({product.weights[0][0].format.name: way} for way in WAYS)]


def _measured(kernels: "CPUKernels", product: OneTokenProduct, others: Sequence[PackedMatrix], seconds: float) -> dict[str, float] | None:
    """How much faster each way is than the default; None where its steps are no native graph."""
    steps = [found for reading in _readings(product) if (found := _steps(kernels, product, reading)) is not None]
    if len(steps) <= len(WAYS):
        return None
    return dict(zip(WAYS, _gains(steps, [buffers.view(w.data) for w in _up_to(others, MOST_BYTES)], seconds), strict=True))


def _up_to(weights: Sequence[PackedMatrix], most: int) -> Iterator[PackedMatrix]:
    """As many of the first ones as have so many bytes; one at least."""
    for i, weight in enumerate(weights):
        if (most := most - weight.nbytes) < 0 and i:
            return
        yield weight


def _inputs(product: OneTokenProduct) -> list[Tensor]:
    """Numbers that mean nothing: a row of activations and, where the product adds to it, what it adds to."""
    (weight,) = product.weights[0]
    rows, cols = weight.shape
    sizes = (cols,) if product.norm else (cols, rows)
    return [Tensor.zeros(1, n, device=weight.data.device).contiguous().realize() for n in sizes]


def _product(kernels: "CPUKernels", product: OneTokenProduct, readings: dict[str, str], inputs: Sequence[Tensor]) -> Tensor:
    """The first layer's, of those inputs."""
    (weight,), before, kernels.readings = product.weights[0], kernels.readings, readings
    try:
        if product.norm:
            return kernels.norm_linear(inputs[0], inputs[0], product.eps, weight)
        return kernels.linear_residual(inputs[0], weight, inputs[1])
    finally:
        kernels.readings = before


def _captured(run: Callable[..., object], inputs: Sequence[Tensor]) -> TinyJit:
    jit = TinyJit(run)
    jit.cnt = 1  # every buffer is there: capture at once
    jit(*inputs)
    return jit


def _steps(kernels: "CPUKernels", product: OneTokenProduct, readings: dict[str, str]) -> Composite | None:
    """The product layer after layer, as decode steps make it; captured once."""
    weights, inputs = list(_up_to([w for (w,) in product.weights], MOST_BYTES)), _inputs(product)
    jit = _captured(lambda *given: _product(kernels, product, readings, given).realize(), [*inputs, weights[0].data])
    return compose([(jit, [*inputs, w.data]) for w in weights])


def _gains(steps: Sequence[Composite], others: Sequence[np.ndarray], seconds: float) -> list[float]:
    """What the first one takes by what each of the rest takes, of one thread's processor time: medians over rounds of runs in turn,
    before each of which `others` are read, so that no cache has the weights."""
    alone = Pool(1)

    def taken(steps: Composite) -> float:
        for memory in others:
            memory.max()
        assert isinstance(steps.graph, PoolGraph)
        started = time.thread_time()
        alone.replay(steps.graph.plan.address, 0)
        return time.thread_time() - started

    until, rounds = time.perf_counter() + seconds, list[list[float]]()
    while len(rounds) < ROUNDS[0] or (len(rounds) < ROUNDS[1] and time.perf_counter() < until):
        order = range(len(steps)) if len(rounds) % 2 else reversed(range(len(steps)))
        times = {i: taken(steps[i]) for i in order}
        rounds.append([times[0] / times[i] for i in range(1, len(steps))])
    return [statistics.median_high(ratios) for ratios in zip(*rounds, strict=True)]


def _path() -> Path:
    return cache_files.folder("tuning") / f"cpu-{_identity()}.json"


def _identity() -> str:
    """Sixteen hex digits that differ where a measurement would: processor, instructions, compiler's flags, what kernels are made of."""
    compiler = Device["CPU"].renderer.compiler
    sources = [file.read_bytes() for file in sorted((Path(__file__).parent / "c").glob("*.[ch]"))]
    facts = repr((processor_name(), compiler_tag(), compiler.args)).encode()
    return hashlib.sha256(b"\0".join([facts, *sources])).hexdigest()[:16]


def _load(path: Path) -> dict[str, dict[str, float]]:
    """The gains by format and way that a file holds; none where it is missing or was written by something else."""
    try:
        found = json.loads(path.read_text())
        return {str(name): {way: float(gains[way]) for way in WAYS} for name, gains in found.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}
