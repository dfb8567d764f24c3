"""A graph as the native replay reads it: kernels and their arguments, steps between synchronisations, what changes from call to call."""

import ctypes
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from ext.tinygrad.graph import native
from ext.tinygrad.graph.captured import ArgumentUpdate
from ext.tinygrad.graph.task_ranges import MOST_READS, Stretch

NO_STRETCH = Stretch(0, 0, 0, 0, 0)
NO_CORE = (1 << 64) - 1  # Kernel.core_slot of a kernel without core_id


@dataclass(frozen=True)
class PooledLaunch:
    """One kernel: the code at `entry` called with 64-bit `arguments`.

    With a core_slot it is called once for each core id 0..cores-1 in that argument, in any order and at the same time."""

    entry: int
    arguments: Sequence[int]
    changes: Sequence[ArgumentUpdate] = ()
    core_slot: int | None = None
    cores: int = 1
    reads: Sequence[Stretch] | None = None  # what a kernel reads of which one call may take several ids in a row; None: one id a call
    # for people
    name: str = ""
    nbytes: int = 0  # of the buffers it is given


@dataclass
class LaunchPlan:
    """Owns the memory behind one native Graph; `address` is what Pool.replay takes."""

    launches: list[PooledLaunch]
    memory: list[object] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        """Raises Unsupported for a graph beyond what the native word can count."""
        arguments, kernels, steps, patches = array("Q"), array("Q"), array("Q"), array("Q")
        starts = []
        for launch in self.launches:
            starts.append(len(arguments))
            width = next(width for width in native.WIDTHS if len(launch.arguments) <= width)
            arguments.extend([argument & NO_CORE for argument in launch.arguments] + [0] * (width - len(launch.arguments)))
        base = self._keep(arguments)
        for start, end, launch in zip(starts, [*starts[1:], len(arguments)], self.launches):
            slot = NO_CORE if launch.core_slot is None else launch.core_slot % len(launch.arguments)
            reads = launch.reads or ()
            kernels.extend((launch.entry, base + 8 * start, end - start, slot, launch.cores, launch.reads is not None, len(reads)))
            for stretch in reads:
                kernels.extend(stretch)
            kernels.extend(NO_STRETCH * (MOST_READS - len(reads)))
            for change in launch.changes:
                patches.extend((base + 8 * (start + change.argument), change.value, change.addend & NO_CORE))
        for first, count, cores in group(self.launches):
            chunk = -(-cores // native.MOST_CLAIMS)
            steps.extend((first, count, -(-cores // chunk), chunk))
        if len(steps) // 4 >= native.MOST_STEPS:
            raise native.Unsupported(f"a graph of {len(self.launches)} kernels is too long for one native call")
        graph = native.NativeGraphStruct(
            self._keep(kernels), self._keep(steps), self._keep(patches), len(self.launches), len(steps) // 4, len(patches) // 3,
            any(launch.cores > 1 for launch in self.launches), 0, 1_000_000,
        )  # fmt: skip
        self.memory.append(graph)
        self.native, self.address = graph, ctypes.addressof(graph)

    def _keep(self, words: array) -> int:
        """Own `words`, which must not grow any more, and tell where they are."""
        if not words:
            words.append(0)
        self.memory.append(words)
        return words.buffer_info()[0]


def group(launches: Sequence[PooledLaunch]) -> list[tuple[int, int, int]]:
    """(first kernel, how many, tasks): kernels in a row with one task each are one step, done by one thread without a word to others."""
    steps: list[tuple[int, int, int]] = []
    for index, launch in enumerate(launches):
        if launch.cores == 1 and steps and steps[-1][2] == 1:
            steps[-1] = (steps[-1][0], steps[-1][1] + 1, 1)
        else:
            steps.append((index, 1, launch.cores))
    return steps
