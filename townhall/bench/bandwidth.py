"""How fast the weights can be read at all: the very buffers of decode, summed up by code that does nothing else, on the same threads."""

import statistics
import time
from collections.abc import Sequence

from tinygrad import Tensor, TinyJit, dtypes

from app.models.llama.transformer import Transformer
from ext.tinygrad.graph.compose import Composite, compose
from ext.tinygrad.kernels.cpu.program import launch
from ext.tinygrad.kernels.protocol import PackedWeight

AHEAD = (0, 4096)  # bytes prefetched ahead; which is better depends on the processor, so both are tried
TASK_BYTES = 256 << 10  # read by a task: as long as one of decode's
MOST_TASKS = 512
REPLAYS = 7

SOURCE = """
#define LINE 64
void plain_read(unsigned long* restrict out, const unsigned char* restrict data, long core_id) {
  long lines = NBYTES / LINE, from = lines * core_id / TASKS, to = lines * (core_id + 1) / TASKS;
  typedef unsigned long vector __attribute__((vector_size(LINE), aligned(LINE)));
  vector a = {0}, b = {0}, c = {0}, d = {0};
  long i = from;
  for (; i + 4 <= to; i += 4) {
    const vector* p = (const vector*)data + i;
    if (AHEAD) for (int k = 0; k < 4; k++) __builtin_prefetch((const char*)p + k * LINE + AHEAD);
    a += p[0]; b += p[1]; c += p[2]; d += p[3];
  }
  for (; i < to; i++) a += ((const vector*)data)[i];
  a += b + c + d;
  for (int k = 0; k < 8; k++) out[8 * core_id + k] = a[k];
}
"""


class PlainRead:
    """Call it for bytes a second."""

    def __init__(self, model: Transformer):
        weights = [w for block in model.blocks for w in block.matrices] + [model.output]
        self.nbytes = sum(w.nbytes for w in weights)
        sums = Tensor.zeros(8 * MOST_TASKS, dtype=dtypes.uint64, device="CPU").contiguous().realize()
        self._composites = [_compose(weights, sums, ahead) for ahead in AHEAD]

    def __call__(self) -> float:
        return self.nbytes / min(statistics.median(_time(composite) for _ in range(REPLAYS)) for composite in self._composites)


def _time(composite: Composite) -> float:
    started = time.perf_counter()
    composite({})
    return time.perf_counter() - started


def _compose(weights: Sequence[PackedWeight], sums: Tensor, ahead: int) -> Composite:
    jits: dict[int, TinyJit] = {}
    parts = []
    for data in (w.tensors[0] for w in weights):
        if (jit := jits.get(data.nbytes())) is None:
            jit = jits[data.nbytes()] = _capture(data, sums, ahead)
        parts.append((jit, [sums, data]))
    composite = compose(parts)
    assert isinstance(composite, Composite), "the plain read cannot be captured"
    return composite


def _capture(data: Tensor, sums: Tensor, ahead: int) -> TinyJit:
    tasks = min(MOST_TASKS, max(1, data.nbytes() // TASK_BYTES))
    source = f"#define NBYTES {data.nbytes()}\n#define TASKS {tasks}\n#define AHEAD {ahead}\n{SOURCE}"

    def read(*inputs: Tensor) -> Tensor:
        (out,) = launch(source, "plain_read", tasks, [sums], [data])
        return out.realize()

    jit = TinyJit(read)
    jit.cnt = 1  # as in app.models.llama.forward: no eager first call
    jit(sums, data)
    return jit
