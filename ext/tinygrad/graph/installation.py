"""Hooking graph runners to tinygrad's devices, and taking the CPU's off again."""

import os
from typing import Any

from tinygrad.device import Device
from tinygrad.helpers import JIT_BATCH_SIZE, NUM_CPU_THREADS, getenv

from ext.tinygrad.graph import compiling, native
from ext.tinygrad.graph.captured import NativeGraphRunner
from ext.tinygrad.graph.cpu_runner import CPUGraphRunner
from ext.tinygrad.graph.pool import thread_count, use_threads
from ext.tinygrad.graph.profile import say

# In how many tasks tinygrad may cut a kernel that it generates. By itself it takes the number of CPUs: that makes it another program on
# every machine, and leaves nothing to share out when one of the cores is busy. A fixed number does neither; a task more costs some 50 ns.
TASKS_PER_KERNEL = 16

_before: dict[str, Any] = {}


def install(threads: int | None = None) -> bool:
    """Have every TinyJit captured on device CPU from now on replayed as one native call on `threads` threads.

    The default is THREADS, or as many as there are cores. Returns False, saying why at DEBUG=1, where it cannot: TinyJit then replays as
    ever. Calling it again changes the number of threads, also for what is captured already. Raises ThreadsError for a wrong THREADS."""
    count = thread_count() if threads is None else threads
    if getenv("HCQ2"):
        return _no("HCQ2=1 has queues of its own")
    try:
        use_threads(count)
    except native.Unsupported as error:
        return _no(str(error))
    device = Device["CPU"]
    if not _before:
        _before.update(graph=device.graph, batch=JIT_BATCH_SIZE.value, tasks=NUM_CPU_THREADS.value)
    device.graph = CPUGraphRunner
    if "NUM_CPU_THREADS" not in os.environ:
        NUM_CPU_THREADS.value = TASKS_PER_KERNEL
    _one_graph_each()
    return True


def install_on(device: str) -> bool:
    """Have every TinyJit captured on this device from now on replayed as one native call, where its kind has a runner of ours."""
    if device == "CPU":
        return install()
    if (runner := _runner(device.split(":")[0])) is None:
        return False
    Device[device].graph = runner
    _one_graph_each()
    return True


def _runner(kind: str) -> type[NativeGraphRunner] | None:
    """For a kind of device behind a driver, whose bindings are imported only where there is one."""
    if kind == "CL":
        from ext.tinygrad.graph.opencl_queue import CLGraphRunner

        return CLGraphRunner
    if kind == "CUDA":
        from ext.tinygrad.graph.cuda_queue import CUDAGraphRunner

        return CUDAGraphRunner
    return None


def _one_graph_each() -> None:
    compiling.install()
    JIT_BATCH_SIZE.value = 0  # one graph, however long
    # a kernel alone between others that cannot be in a graph is a graph as well
    os.environ.setdefault("GRAPH_ONE_KERNEL", "1")
    if not getenv("GRAPH_ONE_KERNEL") and os.environ["GRAPH_ONE_KERNEL"] == "1":
        getenv.cache_clear()  # tinygrad has asked before and remembers the answer


def uninstall() -> None:
    """Leave tinygrad as it was; graphs already captured keep their runner."""
    compiling.uninstall()
    if _before:
        Device["CPU"].graph = _before["graph"]
        JIT_BATCH_SIZE.value, NUM_CPU_THREADS.value = _before["batch"], _before["tasks"]
        os.environ.pop("GRAPH_ONE_KERNEL", None)
        getenv.cache_clear()
        _before.clear()


def _no(reason: str) -> bool:
    say(f"captured graphs are replayed by tinygrad, kernel by kernel: {reason}")
    return False
