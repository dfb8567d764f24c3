"""What the native replay itself costs: nanoseconds per empty kernel, by number of threads and of tasks.

    python bench/graph_overhead.py [threads …]
"""

import statistics
import sys
import time
from array import array

from ext.tinygrad.toolchain import prepare_environment

SOURCE = """
void work(unsigned long long turns, void *unused, int core_id) { while (turns--) __asm__ volatile("" ::: "memory"); }
"""
KERNELS = 300
ROUNDS = 41


def main() -> None:
    prepare_environment()
    from ext.tinygrad.graph.plan import Launch, Plan
    from ext.tinygrad.graph.pool import use_threads
    from tinygrad.device import Device, TinyELF
    from tinygrad.runtime.ops_cpu import CPUProgram
    from tinygrad.runtime.support.compiler_cpu import ClangCompiler

    device = Device["CPU"]
    binary = ClangCompiler((device.arch or "").split(",")).compile_cached(SOURCE)
    empty = CPUProgram(device, TinyELF(binary, "empty", device.renderer.target, ()))
    values = array("Q", [0])
    rows = [
        (1, "one task each, in a row", 0), (2, "2 tasks", 0), (4, "4 tasks", 0), (16, "16 tasks", 0), (0, "alternating 1 and 2 tasks", 0),
        (2, "2 tasks of work", 40000), (4, "4 tasks of work", 40000), (16, "16 tasks of work", 40000),
    ]  # fmt: skip
    for threads in map(int, sys.argv[1:] or ["1", "2"]):
        pool = use_threads(threads)
        pool.start()
        for tasks, label, turns in rows:
            counts = [tasks or 1 + index % 2 for index in range(KERNELS)]
            plan = Plan([Launch(empty.addr, [turns // (count if turns else 1), 0, 0], core_slot=2 if count > 1 else None, cores=count) for count in counts])
            took, before = [], pool.state.solo_runs
            for _ in range(ROUNDS):
                start = time.perf_counter_ns()
                pool.replay(plan.address, values.buffer_info()[0])
                took.append((time.perf_counter_ns() - start) / KERNELS)
            took.sort()
            alone = pool.state.solo_runs - before
            note = f", {alone} of {ROUNDS} replays without helpers" if alone else ""
            print(f"{threads} threads, {label:24}: {statistics.median(took):7.1f} ns per kernel (fastest {took[0]:.1f}, slowest {took[-1]:.1f}{note})")
    one = Plan([Launch(empty.addr, [0, 0, 0])])
    start = time.perf_counter_ns()
    for _ in range(10000):
        pool.replay(one.address, values.buffer_info()[0])
    print(f"one call from Python: {(time.perf_counter_ns() - start) / 10000:.0f} ns")


if __name__ == "__main__":
    main()
