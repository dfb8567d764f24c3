"""Formats whose weights one token's products read faster without prefetches: PLAIN_READ of c/tile.h.

Where a processor reads ahead better by itself, and of which formats, cannot be asked of it (docs/notes.md), so it is measured: at the
first start on a processor, for each format that a model has enough of, with a product of the model's own, over the weights of its layers,
and kept. Where it cannot be measured, weights are prefetched. No sum changes with it.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
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

SECONDS = 0.1  # that measuring takes at most, all formats together and without compiling
PAIRS = 4, 20  # of timed runs, at least and at most
LEAST_BYTES, MOST_BYTES = 8 << 20, 96 << 20  # of the weights that are timed, and at most of what is read between
GAIN = 1.03  # without prefetches a format's weights are read this much faster, or with them


def plain_formats(kernels: "CPUKernels", products: Sequence[OneTokenProduct], seconds: float | None = None) -> frozenset[str]:
    """The names of these formats: what is known of this processor, and what is measured now, in so many seconds at most."""
    path = cache_files.folder("tuning") / f"cpu-{_identity()}.json"
    gains = _load(path)
    single = sorted((p for p in products if p.name == "linear"), key=lambda p: sum(w.nbytes for (w,) in p.weights))
    largest = {p.weights[0][0].format.name: p for p in single}  # of each format the product with most of it
    unknown = {name: p for name, p in largest.items() if name not in gains and sum(w.nbytes for (w,) in p.weights) >= LEAST_BYTES}
    if unknown and os.environ.get("TUNE", "1") != "0" and (seconds is None or seconds > 0):
        _compile(kernels, list(unknown.values()))
        share = (SECONDS if seconds is None else min(SECONDS, seconds)) / len(unknown)
        for name, product in unknown.items():
            others = [w for p in products if p is not product for layer in p.weights for w in layer]
            if (gain := _measured(kernels, product, others, share)) is not None:
                say(f"one token's products read {name} at {gain:.2f} times the rate without prefetches")
                gains[name] = round(gain, 3)
        try:
            with cache_files.written(path) as part:
                part.write_text(json.dumps(gains))
        except OSError as error:
            say(f"how weights are read is not kept: {error}")
    return frozenset(name for name, gain in gains.items() if gain > GAIN)


def _compile(kernels: "CPUKernels", products: Sequence[OneTokenProduct]) -> None:
    """Both kernels of each product, side by side: one after the other they take longer than all that is timed."""
    inputs = [_inputs(product) for product in products]

    def run(*_: Tensor) -> Tensor:
        made = [_product(kernels, product, way, given) for product, given in zip(products, inputs, strict=True) for way in _ways(product)]
        return made[0].realize(*made[1:])

    _captured(run, inputs[0])


def _ways(product: OneTokenProduct) -> tuple[frozenset[str], frozenset[str]]:
    """The formats to read plainly: that of the product, or none."""
    return frozenset({product.weights[0][0].format.name}), frozenset()


def _measured(kernels: "CPUKernels", product: OneTokenProduct, others: Sequence[PackedMatrix], seconds: float) -> float | None:
    """How much faster this product is without prefetches; None where its steps are no native graph."""
    plain, default = (_steps(kernels, product, way) for way in _ways(product))
    if plain is None or default is None:
        return None
    return _ratio(default, plain, [buffers.view(w.data) for w in _up_to(others, MOST_BYTES)], seconds)


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


def _product(kernels: "CPUKernels", product: OneTokenProduct, plain: frozenset[str], inputs: Sequence[Tensor]) -> Tensor:
    """The first layer's, of those inputs."""
    (weight,), before, kernels.plain_formats = product.weights[0], kernels.plain_formats, plain
    try:
        if product.norm:
            return kernels.norm_linear(inputs[0], inputs[0], product.eps, weight)
        return kernels.linear_residual(inputs[0], weight, inputs[1])
    finally:
        kernels.plain_formats = before


def _captured(run: Callable[..., object], inputs: Sequence[Tensor]) -> TinyJit:
    jit = TinyJit(run)
    jit.cnt = 1  # every buffer is there: capture at once
    jit(*inputs)
    return jit


def _steps(kernels: "CPUKernels", product: OneTokenProduct, plain: frozenset[str]) -> Composite | None:
    """The product layer after layer, as decode steps make it; captured once."""
    weights, inputs = list(_up_to([w for (w,) in product.weights], MOST_BYTES)), _inputs(product)
    jit = _captured(lambda *given: _product(kernels, product, plain, given).realize(), [*inputs, weights[0].data])
    return compose([(jit, [*inputs, w.data]) for w in weights])


def _ratio(a: Composite, b: Composite, others: Sequence[np.ndarray], seconds: float) -> float:
    """What `a` takes by what `b` takes, of one thread's processor time: the median over pairs of runs in turn, before each of
    which `others` are read, so that no cache has the weights."""
    alone = Pool(1)

    def taken(steps: Composite) -> float:
        for memory in others:
            memory.max()
        assert isinstance(steps.graph, PoolGraph)
        started = time.thread_time()
        alone.replay(steps.graph.plan.address, 0)
        return time.thread_time() - started

    until, ratios = time.perf_counter() + seconds, list[float]()
    while len(ratios) < PAIRS[0] or (len(ratios) < PAIRS[1] and time.perf_counter() < until):
        if len(ratios) % 2:
            second, first = taken(b), taken(a)
        else:
            first, second = taken(a), taken(b)
        ratios.append(first / second)
    return sorted(ratios)[len(ratios) // 2]


def _identity() -> str:
    """Sixteen hex digits that differ where a measurement would: processor, instructions, compiler's flags, what kernels are made of."""
    compiler = Device["CPU"].renderer.compiler
    sources = [file.read_bytes() for file in sorted((Path(__file__).parent / "c").glob("*.[ch]"))]
    facts = repr((processor_name(), compiler_tag(), compiler.args)).encode()
    return hashlib.sha256(b"\0".join([facts, *sources])).hexdigest()[:16]


def _load(path: Path) -> dict[str, float]:
    """The gains by format that a file holds; none where it is missing or was written by something else."""
    try:
        return {str(name): float(gain) for name, gain in json.loads(path.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
