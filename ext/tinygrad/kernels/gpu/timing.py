"""Times launches on a device, for the tuner to compare."""

import time
from collections.abc import Callable, Sequence

from tinygrad import Tensor, TinyJit
from tinygrad.device import Device

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
