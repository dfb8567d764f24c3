"""Times launches on a device: what the tuner compares, and what a way to a card is judged by."""

import time
from collections.abc import Callable, Sequence

import numpy as np
from tinygrad import Tensor, TinyJit
from tinygrad.device import Device

from ext.tinygrad.buffers import upload
from ext.tinygrad.kernels.cpu.formats import FORMATS

REPLAYS = 5
MATRICES, SIDE = 16, 4096  # of decode_rate: 150 MB together, more than a card's caches hold


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


def decode_rate(device: str) -> float:
    """Bytes of weights a second that products of one token read there: random Q4_0 matrices of 4096 x 4096, one after another."""
    from ext.tinygrad.kernels.cpu.weight import CPUWeight
    from ext.tinygrad.kernels.gpu.gpu_kernels import GPUKernels
    from ext.tinygrad.kernels.gpu.tuning import Tuning

    kernels, random, form = GPUKernels(Tuning.of(device)), np.random.default_rng(0), FORMATS["q4_0"]
    blocks = random.integers(0, 256, form.nbytes(SIDE, SIDE), dtype=np.uint8).view(form.record)
    blocks["blocks"]["scales"] = random.uniform(0.001, 0.002, blocks["blocks"]["scales"].shape)
    weights = [CPUWeight.from_packed(form, (SIDE, SIDE), blocks.view(np.uint8), device) for _ in range(MATRICES)]
    x = upload(random.standard_normal((1, SIDE)).astype(np.float32), device)
    taken = seconds(device, lambda: [kernels.linear_residual(x, weight, x) for weight in weights])
    return sum(weight.nbytes for weight in weights) / taken
