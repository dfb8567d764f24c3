"""A canary: how fast the device that holds given weights reads them, timed by a kernel that does nothing else.

What a person sees of a device is then measured where the weights lie, not told. It costs a start a few milliseconds.
"""

import ctypes
import functools
import threading
import time
from array import array
from collections.abc import Callable, Sequence
from typing import Any

from tinygrad import Tensor
from tinygrad.device import Device, TinyELF

CPU_BYTES, GPU_BYTES = 32 << 20, 1 << 30  # read at most: enough that starting threads does not count, and no more
STRETCHES = 2  # that a CPU reads them in
REPEATS = 3  # elsewhere

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
# on a CPU an item reads a stretch of its own; on a GPU neighbours read neighbouring words
OPENCL_SOURCE = """
__kernel void canary(__global uint* restrict out, const __global uint4* restrict data, int n, int stretches) {
  const long items = get_global_size(0), item = get_global_id(0);
  const long first = stretches ? n * item / items : item, last = stretches ? n * (item + 1) / items : n, step = stretches ? 1 : items;
  uint4 sum = 0;
  for (long i = first; i < last; i += step) sum += data[i];
  out[item] = sum.x + sum.y + sum.z + sum.w;
}
"""


def bandwidth(tensors: Sequence[Tensor]) -> float:
    """Bytes a second that the device of these realized tensors reads of them; 0 for none."""
    if not tensors:
        return 0.0
    largest = sorted(tensors, key=lambda t: -t.nbytes())
    kind = tensors[0].device.split(":")[0]
    return {"CPU": _on_cpu, "CL": _on_opencl}.get(kind, _on_tinygrad)(largest)


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
    from ext.tinygrad.graph.runner import address
    from ext.tinygrad.graph.threads import thread_count

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


def _on_opencl(tensors: Sequence[Tensor]) -> float:
    from ext.tinygrad.graph.opencl import handle
    from ext.tinygrad.graph.opencl_queue import Launch, Queue
    from ext.tinygrad.opencl import info_of

    opened = Device[tensors[0].device]
    info = info_of(opened)
    on_cpu = info.kind == "cpu"
    program = opened.runtime(TinyELF(OPENCL_SOURCE.encode(), "canary", opened.renderer.target, ()))
    local = 1 if on_cpu else min(256, info.most_items)
    items = info.units * local * (4 if on_cpu else 8)
    out = Tensor.empty(items, dtype="uint32", device=opened.device).uop.base.buffer.ensure_allocated()
    launches, chosen = [], _first(tensors, CPU_BYTES if on_cpu else GPU_BYTES)
    for tensor, nbytes in chosen:
        buffers = [ctypes.c_void_p(handle(b)) for b in (out, tensor.uop.base.buffer)]
        arguments: list[Any] = [*buffers, ctypes.c_int32(nbytes // 16), ctypes.c_int32(on_cpu)]
        launches.append(Launch(program.program, "canary", (items,), (local,), arguments))
    queue, values = Queue(opened, launches), array("q", [0])

    def read() -> None:
        queue(values.buffer_info()[0])
        opened.synchronize()

    read()  # the driver's own preparations are not timed
    return sum(nbytes for _, nbytes in chosen) / min(_time(read) for _ in range(REPEATS))


def _on_tinygrad(tensors: Sequence[Tensor]) -> float:
    """With a kernel that tinygrad generates, for devices without one of ours."""
    tensor = tensors[0]

    def read() -> None:
        tensor.sum().realize()
        Device[tensor.device].synchronize()

    read()  # it is compiled
    return tensor.nbytes() / min(_time(read) for _ in range(REPEATS))
