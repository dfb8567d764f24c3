"""How fast the weights can be read at all: the memory that decode reads, summed up by code that does nothing else, on the same threads.

An upper bound must not stumble where decode does not: so there is one launch instead of one per matrix, its tasks are alike in size
whatever matrix they lie in, and of several ways to read the fastest counts.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tinygrad import Tensor, TinyJit, dtypes

from app.models.llama.transformer import Transformer
from ext.tinygrad import buffers
from ext.tinygrad.graph.compose import Composite, compose
from ext.tinygrad.kernels.cpu.cpu_source import launch

LINE = 64  # bytes
REPLAYS = 5  # of each way, for one measurement
MOST_TASKS = 4000  # of a launch


@dataclass(frozen=True)
class Way:
    """A way to read: bytes of a task, bytes prefetched ahead, how many places of the task are read in turn."""

    task_bytes: int
    ahead: int
    streams: int


# which is fastest depends on the processor and on how many threads there are
WAYS = [Way(size, ahead, streams) for size in (64 << 10, 512 << 10) for ahead, streams in ((0, 1), (4096, 1), (0, 4))]

SOURCE = """
void plain_read(unsigned long* restrict out, const unsigned long* restrict table, long core_id) {
  typedef unsigned long vector __attribute__((vector_size(LINE), aligned(LINE)));
  const vector* p = (const vector*)table[2 * core_id];
  long lines = table[2 * core_id + 1], quarter = lines / 4;
  vector a = {0}, b = {0}, c = {0}, d = {0};
  for (long i = 0; i < quarter; i++) {
    const vector* q = STREAMS == 1 ? p + 4 * i : p + i;
    long step = STREAMS == 1 ? 1 : quarter;
    if (AHEAD) for (int k = 0; k < 4; k++) __builtin_prefetch((const char*)(q + k * step) + AHEAD);
    a += q[0]; b += q[step]; c += q[2 * step]; d += q[3 * step];
  }
  for (long i = 4 * quarter; i < lines; i++) a += p[i];
  a += b + c + d;
  for (int k = 0; k < 8; k++) out[8 * core_id + k] = a[k];
}
"""


class PlainRead:
    """Call it for bytes a second."""

    def __init__(self, model: Transformer):
        self._weights = [w.tensors[0] for block in model.blocks for w in block.matrices] + [model.output.tensors[0]]
        places = [(t.uop.base.realized._buf.va_addr, t.nbytes()) for t in self._weights]
        self._reads = [(_compose(way, tasks), sum(lines for _, lines in tasks) * LINE) for way in WAYS for tasks in [divide(places, way)]]

    def __call__(self) -> float:
        rates = []
        for composite, nbytes in self._reads:
            composite({})  # another way's threads may be asleep by now
            rates.append(nbytes / statistics.median(_time(composite) for _ in range(REPLAYS)))
        return max(rates)


def divide(places: Sequence[tuple[int, int]], way: Way) -> list[tuple[int, int]]:
    """(address, lines) of tasks over stretches of memory (address, bytes), neighbours joined; bytes of a last unfinished line left out."""
    joined: list[list[int]] = []
    for start, nbytes in sorted(set(places)):
        # what lies between two weights to align the second is read with them: there is no faster way past it
        if joined and 0 <= start - joined[-1][1] < LINE:
            joined[-1][1] = start + nbytes
        else:
            joined.append([start, start + nbytes])
    size = max(way.task_bytes, sum(stop - start for start, stop in joined) // MOST_TASKS + LINE) // LINE * LINE
    return [(at, min(size, stop - at) // LINE) for start, stop in joined for at in range(start, stop, size) if stop - at >= LINE]


def _time(composite: Composite) -> float:
    started = time.perf_counter()
    composite({})
    return time.perf_counter() - started


def _compose(way: Way, tasks: Sequence[tuple[int, int]]) -> Composite:
    source = f"#define LINE {LINE}\n#define AHEAD {way.ahead}\n#define STREAMS {way.streams}\n{SOURCE}"
    sums = Tensor.zeros(8 * len(tasks), dtype=dtypes.uint64, device="CPU").contiguous().realize()
    table = buffers.upload(np.array(tasks, np.uint64).reshape(-1), "CPU")

    def read(*inputs: Tensor) -> Tensor:
        (out,) = launch(source, "plain_read", len(tasks), [sums], [table])
        return out.realize()

    jit = TinyJit(read)
    jit.cnt = 1  # as in app.models.llama.forward: no eager first call
    jit(sums, table)
    composite = compose([(jit, [sums, table])])
    assert isinstance(composite, Composite), "the plain read cannot be captured"
    return composite
