"""Where a replay's time goes, kernel by kernel; and reasons for taking a slower path, printed under DEBUG=1."""

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tinygrad.helpers import DEBUG

_said: set[str] = set()


def say(reason: str) -> None:
    """Print a reason, once."""
    if DEBUG >= 1 and reason not in _said:
        _said.add(reason)
        print(f"graph: {reason}", file=sys.stderr)


@dataclass(frozen=True)
class KernelTime:
    """One kernel of a graph, in the graph's order."""

    name: str
    tasks: int  # CPU: core ids; else work-groups
    ns: float  # from the end of the kernel before it (OpenCL: its own start) to its own end: median over the replays
    samples: tuple[int, ...]  # the same of each replay
    nbytes: int  # sum of the sizes of the buffers it is given; what it moves may be less (a cache that is half empty)

    @classmethod
    def of(cls, launch: Any, tasks: int, samples: Sequence[int]) -> "KernelTime":
        """A launch (`name`, `nbytes`) and its nanoseconds in each replay."""
        return cls(launch.name, tasks, statistics.median(samples), tuple(samples), launch.nbytes)

    @property
    def gb_per_second(self) -> float:
        return self.nbytes / self.ns if self.ns else 0.0


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
