"""What the native replay itself costs, by number of threads and of tasks: nanoseconds per empty kernel, and beyond the work of busy ones.

    python bench/graph_overhead.py [threads …]

Replays in which no helper took part (another process had its core) are left out and counted.
"""

import statistics
import sys
import time
from array import array

from ext.tinygrad.toolchain import prepare_environment

SOURCE = """
void work(unsigned long long turns, void *unused, int core_id) { while (turns--) __asm__ volatile("" ::: "memory"); }
"""
ROUNDS = 101
CASES = [  # tasks of each kernel (0: one and two in turn), loop turns of each kernel
    (1, 0), (2, 0), (4, 0), (16, 0), (0, 0), (2, 40_000), (4, 40_000), (16, 40_000),
]  # fmt: skip


def main() -> None:
    prepare_environment()
    from tinygrad.device import Device, TinyELF
    from tinygrad.runtime.ops_cpu import CPUProgram
    from tinygrad.runtime.support.compiler_cpu import ClangCompiler

    from ext.tinygrad.graph.launch_plan import LaunchPlan, PooledLaunch
    from ext.tinygrad.graph.pool import Pool

    device = Device["CPU"]
    binary = ClangCompiler((device.arch or "").split(",")).compile_cached(SOURCE)
    program = CPUProgram(device, TinyELF(binary, "work", device.renderer.target, ()))
    values = array("q", [0])

    def replay_ns(pool: Pool, plan: LaunchPlan) -> float:
        start = time.perf_counter_ns()
        pool.replay(plan.address, values.buffer_info()[0])
        return time.perf_counter_ns() - start

    for threads in map(int, sys.argv[1:] or ["1", "2"]):
        pool = Pool(threads, adaptive=False)
        for tasks, turns in CASES:
            # enough of them that waking the helpers is worth it
            counts = [tasks or 1 + index % 2 for index in range(300 if turns else 5000)]
            plan = LaunchPlan([PooledLaunch(program.addr, [turns // n, 0, 0], core_slot=2 if n > 1 else None, cores=n) for n in counts])
            took, done_alone = [], 0
            for _ in range(ROUNDS):
                before = sum(slot.tasks for slot in pool.state.slots[1:])
                ns = replay_ns(pool, plan) / len(counts)
                helped = sum(slot.tasks for slot in pool.state.slots[1:]) - before
                if threads > 1 and plan.native.parallel and helped < sum(counts) / (4 * threads):
                    done_alone += 1
                else:
                    took.append(ns)
            label = f"{threads} thread{'s' * (threads > 1)}, {tasks or '1 and 2'} task{'s' * (tasks != 1)}{' of work' * bool(turns)}"
            if not took:
                print(f"{label:32} no replay with help: the other cores are taken")
                continue
            took.sort()
            spread = f"fastest {took[0]:.1f}, slowest {took[-1]:.1f}" + f", {done_alone} replays without help" * bool(done_alone)
            print(f"{label:32} {statistics.median(took):9.1f} ns per kernel ({spread})")
        one = LaunchPlan([PooledLaunch(program.addr, [0, 0, 0])])
        print(f"a graph of one kernel, from Python: {statistics.median(replay_ns(pool, one) for _ in range(10_000)):.0f} ns")
        pool.stop()


if __name__ == "__main__":
    main()
