"""Memory bandwidth of a device: how fast it reads given weights, timed by a kernel that does nothing else.

What a person sees of a device is then measured where the weights lie, not declared. It costs a start a few milliseconds.
"""

import ctypes
import functools
import threading
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tinygrad import Tensor
from tinygrad.device import Device, TinyELF

CPU_BYTES, GPU_BYTES = 32 << 20, 1 << 30  # read at most: enough that starting threads does not count, and no more
STRETCHES = 2  # that a CPU reads them in
REPEATS = 3  # elsewhere
GROUPS, ITEMS = 8, 256  # work-groups of a compute unit of a GPU, and what each has
MOST_ROUNDS = 64

CPU_SOURCE = """
typedef unsigned long long u64;
typedef u64 line __attribute__((vector_size(64), aligned(1)));
u64 canary(const unsigned char* data, u64 nbytes) {
  line a = {0}, b = {0};
  u64 i = 0;
  for (; i + 128 <= nbytes; i += 128) {
    __builtin_prefetch(data + i + 2048);
    a += *(const line*)(data + i), b += *(const line*)(data + i + 64);
  }
  a += b;
  return a[0] + a[1] + a[2] + a[3] + a[4] + a[5] + a[6] + a[7];
}
"""
BUFFERS = 16  # that one launch reads: a single matrix is read faster than a kernel is launched
# On a CPU an item reads a stretch of its own; on a GPU neighbours read neighbouring words, four of each item's loads in flight. Summing
# keeps the loads from being left out.
GPU_SOURCE = """
INLINE uint total(const GLOBAL uint4* RESTRICT data, int n, int stretches) {
  const long items = ITEMS, item = ITEM;
  const long first = stretches ? n * item / items : item, last = stretches ? n * (item + 1) / items : n, step = stretches ? 1 : items;
  uint4 a = ZERO, b = ZERO;
  long i = first;
  for (; i + 3 * step < last; i += 4 * step) {
    const uint4 p = LOAD(data + i), q = LOAD(data + i + step), r = LOAD(data + i + 2 * step), s = LOAD(data + i + 3 * step);
    ADD(a, p) ADD(b, q) ADD(a, r) ADD(b, s)
  }
  for (; i < last; i += step) { const uint4 p = LOAD(data + i); ADD(a, p) }
  return a.x + a.y + a.z + a.w + b.x + b.y + b.z + b.w;
}
KERNEL void canary(GLOBAL uint* RESTRICT out, PARAMETERS, int rounds, int stretches) {
  const GLOBAL uint4* const data[] = {BUFFERS};
  const int words[] = {WORDS};
  uint sum = 0;
#pragma unroll 1
  for (int i = 0; i < rounds * COUNT; i++) sum += total(data[i % COUNT], words[i % COUNT], stretches);
  out[ITEM] = sum;
}
"""
OPENCL = {
    "KERNEL": "__kernel",
    "GLOBAL": "__global",
    "RESTRICT": "restrict",
    "INLINE": "inline",
    "ITEM": "get_global_id(0)",
    "ITEMS": "get_global_size(0)",
    "LOAD(address)": "*(address)",
    "ZERO": "(uint4)(0)",
    "ADD(sum, v)": "sum += v;",
}
CUDA = {
    "KERNEL": 'extern "C" __global__ __launch_bounds__(256, 4)',
    "GLOBAL": "",
    "RESTRICT": "__restrict__",
    "INLINE": "__device__ __forceinline__",
    "ITEM": "(blockIdx.x * blockDim.x + threadIdx.x)",
    "ITEMS": "(gridDim.x * blockDim.x)",
    "uint": "unsigned int",
    "LOAD(address)": "__ldg(address)",
    "ZERO": "make_uint4(0, 0, 0, 0)",
    "ADD(sum, v)": "sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;",
}


def gpu_source(dialect: dict[str, str]) -> str:
    """The kernel that reads BUFFERS buffers, `rounds` times each."""
    parts = range(BUFFERS)
    pointers = [f"const {dialect['GLOBAL']} uint4* {dialect['RESTRICT']} data{i}" for i in parts]
    macros = {
        **dialect,
        "COUNT": BUFFERS,
        "PARAMETERS": ", ".join(pointers + [f"int words{i}" for i in parts]),
        "BUFFERS": ", ".join(f"data{i}" for i in parts),
        "WORDS": ", ".join(f"words{i}" for i in parts),
    }
    return "\n".join([*(f"#define {name} {value}" for name, value in macros.items()), GPU_SOURCE])


def bandwidth(tensors: Sequence[Tensor]) -> float:
    """Bytes a second that the device of these realized tensors reads of them; 0 for none."""
    if not tensors:
        return 0.0
    largest = sorted(tensors, key=lambda t: -t.nbytes())
    kind = tensors[0].device.split(":")[0]
    return {"CPU": _on_cpu, "CL": _on_gpu, "CUDA": _on_gpu}.get(kind, _on_tinygrad)(largest)


def _first(tensors: Sequence[Tensor], most: int) -> list[tuple[Tensor, int]]:
    """As many tensors as make up `most` bytes, each with the bytes to read of it."""
    chosen = []
    for tensor in tensors:
        if most > 0:
            chosen.append((tensor, min(tensor.nbytes(), most)))
            most -= tensor.nbytes()
    return chosen


def _time(read: Callable[[], object]) -> float:
    started = time.perf_counter()
    read()
    return time.perf_counter() - started


def _on_cpu(tensors: Sequence[Tensor]) -> float:
    """The best of a few stretches, on as many threads as kernels run on: none twice, for then the processor's cache would have it."""
    from ext.tinygrad.graph.cpu_runner import address
    from ext.tinygrad.graph.pool import thread_count

    function, threads, best = _cpu_function(), thread_count(), 0.0
    for tensor, nbytes in _first(tensors, CPU_BYTES):
        start, size = address(tensor.uop.base.buffer), min(nbytes, CPU_BYTES // STRETCHES)
        for at in range(start, start + nbytes - size + 1, size):

            def part(i: int, at: int = at, size: int = size) -> None:
                function(at + size * i // threads, size * (i + 1) // threads - size * i // threads)

            def read(part: Callable[[int], None] = part) -> None:
                helpers = [threading.Thread(target=part, args=(i,)) for i in range(1, threads)]
                for helper in helpers:
                    helper.start()
                part(0)
                for helper in helpers:
                    helper.join()

            best = max(best, size / _time(read))
    return best


@functools.cache
def _cpu_function() -> Any:
    from tinygrad.runtime.ops_cpu import CPUProgram
    from tinygrad.runtime.support.compiler_cpu import ClangCompiler

    from ext.tinygrad.graph.native import BASELINES, keep_for_ever

    device = Device["CPU"]
    compiler = ClangCompiler(BASELINES[(device.arch or "").split(",")[0]], cachekey="townhall_canary")
    program = CPUProgram(device, TinyELF(compiler.compile_cached(CPU_SOURCE), "canary", device.renderer.target, ()))
    keep_for_ever(program.mem)
    return ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64)(program.addr)


@dataclass(frozen=True)
class _Launch:
    """What one launch reads: buffers, how many 16-byte words of each, and how often."""

    buffers: list[Any]
    words: list[int]
    rounds: int

    @property
    def nbytes(self) -> int:
        return 16 * sum(self.words) * self.rounds


def _launches(tensors: Sequence[Tensor], most: int, again: int) -> list[_Launch]:
    """All of `most` bytes at most, in launches of BUFFERS buffers; what is read sooner than it is launched is read up to `again` times."""
    chosen = _first(tensors, most)
    found = []
    for at in range(0, len(chosen), BUFFERS):
        part = chosen[at : at + BUFFERS]
        buffers, words = [tensor.uop.base.buffer for tensor, _ in part], [nbytes // 16 for _, nbytes in part]
        spare = BUFFERS - len(part)
        rounds = max(1, min(again, most // 4 // max(1, 16 * sum(words))))
        found.append(_Launch(buffers + [buffers[0]] * spare, words + [0] * spare, rounds))
    return found


@dataclass(frozen=True)
class _Reader:
    """A prepared measurement: `read` takes that many seconds to read nbytes; `out` has the sum of each item's words, modulo 2 ** 32."""

    read: Callable[[], float]
    nbytes: int
    out: Any


def _on_gpu(tensors: Sequence[Tensor]) -> float:
    reader = (_cuda_reader if tensors[0].device.split(":")[0] == "CUDA" else _opencl_reader)(tensors)
    reader.read()  # the driver's own preparations are not timed
    return reader.nbytes / min(reader.read() for _ in range(REPEATS))


def _opencl_reader(tensors: Sequence[Tensor]) -> _Reader:
    from ext.tinygrad.graph.driver_runner import DriverLaunch
    from ext.tinygrad.graph.opencl_queue import OpenCLQueue, handle
    from ext.tinygrad.opencl import info_of

    opened = Device[tensors[0].device]
    info = info_of(opened)
    on_cpu = info.kind == "cpu"
    program = opened.runtime(TinyELF(gpu_source(OPENCL).encode(), "canary", opened.renderer.target, ()))
    local = 1 if on_cpu else min(ITEMS, info.most_items)
    items = info.units * local * (4 if on_cpu else GROUPS)
    out = Tensor.empty(items, dtype="uint32", device=opened.device).uop.base.buffer.ensure_allocated()
    parts = _launches(tensors, CPU_BYTES, 1) if on_cpu else _launches(tensors, GPU_BYTES, MOST_ROUNDS)
    launches = []
    for part in parts:
        buffers, numbers = [handle(buffer) for buffer in (out, *part.buffers)], [*part.words, part.rounds, int(on_cpu)]
        sizes = [8] * len(buffers) + [4] * len(numbers)
        launches.append(DriverLaunch(program, "canary", (items,), (local,), [*buffers, *numbers], sizes))
    queue, values = OpenCLQueue(opened, launches), array("q", [0])

    def read() -> None:
        queue(values.buffer_info()[0])
        opened.synchronize()

    return _Reader(lambda: _time(read), sum(part.nbytes for part in parts), out)


def _cuda_reader(tensors: Sequence[Tensor]) -> _Reader:
    """Timed by the card itself, between two events."""
    from tinygrad import dtypes
    from tinygrad.runtime.autogen import cuda as cu
    from tinygrad.runtime.ops_cuda import cu_time_execution

    from ext.tinygrad.cuda import attribute

    opened = Device[tensors[0].device]
    compiled = opened.renderer.compiler.compile_cached(gpu_source(CUDA))
    signature = tuple((None, slot, dtypes.int32, ()) for slot in range(2 * BUFFERS + 3))
    program = opened.runtime(TinyELF(compiled, "canary", opened.renderer.target, signature))
    groups = max(1, attribute(cu.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, opened.device_id)) * GROUPS
    out = Tensor.empty(groups * ITEMS, dtype="uint32", device=opened.device).uop.base.buffer.ensure_allocated()
    parts = _launches(tensors, GPU_BYTES, MOST_ROUNDS)

    def launch() -> None:
        for part in parts:
            arguments = [buffer._buf for buffer in (out, *part.buffers)]
            program(*arguments, global_size=(groups, 1, 1), local_size=(ITEMS, 1, 1), vals=(*part.words, part.rounds, 0))

    return _Reader(lambda: cu_time_execution(launch, enable=True) or 0.0, sum(part.nbytes for part in parts), out)


def _on_tinygrad(tensors: Sequence[Tensor]) -> float:
    """With a kernel that tinygrad generates, for devices without one of ours."""
    tensor = tensors[0]

    def read() -> None:
        tensor.sum().realize()
        Device[tensor.device].synchronize()

    read()  # it is compiled
    return tensor.nbytes() / min(_time(read) for _ in range(REPEATS))
