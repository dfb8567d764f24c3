"""Where a replay's time goes, kernel by kernel."""

import statistics
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from ext.tinygrad.graph.plan import Plan
from ext.tinygrad.graph.pool import Pool


@dataclass(frozen=True)
class KernelTime:
    """One kernel of a graph, in the graph's order."""

    name: str
    tasks: int
    ns: float  # from the end of the kernel before it to its own end: median over the replays
    samples: tuple[int, ...]  # the same of each replay
    nbytes: int  # sum of the sizes of the buffers it is given; what it moves may be less (a cache that is half empty)

    @property
    def gb_per_second(self) -> float:
        return self.nbytes / self.ns if self.ns else 0.0


def profile(pool: Pool, plan: Plan, values: int, replays: int) -> list[KernelTime]:
    """Replay `plan` with the values at address `values`, reading the clock after each kernel (about 25 ns each)."""
    times = array("Q", [0]) * (len(plan.launches) + 1)
    samples: list[list[int]] = [[] for _ in plan.launches]
    for _ in range(replays):
        plan.native.times = times.buffer_info()[0]
        try:
            pool.replay(plan.address, values)
        finally:
            plan.native.times = 0
        for kernel, (begin, end) in zip(samples, zip(times, times[1:])):
            kernel.append(end - begin)
    return [
        KernelTime(launch.name, launch.cores, statistics.median(ns), tuple(ns), launch.nbytes) for launch, ns in zip(plan.launches, samples)
    ]


def table(times: Sequence[KernelTime]) -> str:
    """Kernels of one name summed up, the most expensive first."""
    rows: dict[str, list[KernelTime]] = {}
    for time in times:
        rows.setdefault(time.name, []).append(time)
    total = sum(time.ns for time in times) or 1.0
    lines = [f"{'kernel':40} {'count':>5} {'tasks':>5} {'µs':>9} {'share':>6} {'GB/s':>6}"]
    for name, group in sorted(rows.items(), key=lambda row: -sum(time.ns for time in row[1])):
        ns, nbytes = sum(time.ns for time in group), sum(time.nbytes for time in group)
        lines.append(f"{name[:40]:40} {len(group):5} {group[0].tasks:5} {ns / 1000:9.1f} {ns / total:6.1%} {nbytes / (ns or 1):6.1f}")
    return "\n".join([*lines, f"{'together':40} {len(times):5} {'':5} {total / 1000:9.1f}"])
