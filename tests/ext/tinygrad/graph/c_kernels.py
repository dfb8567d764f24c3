"""Kernels written in C, as the tests give them to tinygrad."""

import ctypes
from array import array
from typing import Any

from tinygrad import Tensor, UOp
from tinygrad.uop.ops import KernelInfo, Ops


def c_kernel(source: str, name: str, tensors: list[Tensor], tasks: int | None = None, variable: UOp | None = None) -> Tensor:
    """Call `void name(tensors…[, int variable][, int core_id])`; -> the first tensor after it. `variable` is bound."""
    variables = []
    if variable is not None:
        inner = variable.src[0]
        variables.append(UOp.variable(inner.arg.name, *inner.arg.vmin_vmax, param=True))
    if tasks is not None:
        variables.append(UOp.variable("core_id", 0, tasks - 1, param=True))

    def program(*params: UOp) -> UOp:
        sink = UOp.sink(*(param.base for param in params), *variables, arg=KernelInfo(name))
        return UOp(Ops.PROGRAM, src=(sink, UOp(Ops.LINEAR, src=(*sink.src, sink)), UOp(Ops.SOURCE, arg=source)))

    uops = [tensor.uop for tensor in tensors]
    call = program(*(UOp.placeholder_like(uop, slot=slot) for slot, uop in enumerate(uops)))
    return Tensor(uops[0].after(call.call(*uops, *([variable] if variable is not None else []))))


# out[rows * tasks] = sum over columns of a, one task for each block of rows
ROW_SUMS = """
void row_sums(float *restrict out, const float *restrict a, int core_id) {
  for (int row = core_id * ROWS; row < (core_id + 1) * ROWS; row++) {
    float sum = 0;
    for (int column = 0; column < COLUMNS; column++) sum += a[row * COLUMNS + column];
    out[row] = sum;
  }
}
"""

# a row is stored into the cache at a position
STORE_ROW = """
void store_row(float *restrict cache, const float *restrict row, int pos, int core_id) {
  for (int i = core_id * WIDTH / TASKS; i < (core_id + 1) * WIDTH / TASKS; i++) cache[pos * WIDTH + i] = row[i] + pos;
}
"""


def with_sizes(source: str, **sizes: int) -> str:
    return "".join(f"#define {name} {value}\n" for name, value in sizes.items()) + source


# out[core] = in[core] + in[the next core], so a task is right only if every task of the kernel before it is done
PAIR_SUMS = """
void pair_sums(unsigned *out, const unsigned *in, unsigned tasks, int core_id) { out[core_id] = in[core_id] + in[(core_id + 1) % tasks]; }
"""

# the same, where one call takes several tasks in a row: the first one, and above its 32 bits how many more
PAIR_RANGES = """
void pair_ranges(unsigned *out, const unsigned *in, unsigned tasks, long range) {
  for (long core = range & 0xffffffff, more = range >> 32; more >= 0; core++, more--) out[core] = in[core] + in[(core + 1) % tasks];
}
"""


# the second of two tasks takes some milliseconds
SLOW = """
void slow(int core_id) { for (unsigned long i = 0; i < (core_id ? 10000000ul : 10ul); i++) __asm__ volatile("" ::: "memory"); }
"""


def compiled(source: str) -> Any:
    """A loaded program; `.addr` is its first function."""
    from tinygrad.device import Device, TinyELF
    from tinygrad.runtime.ops_cpu import CPUProgram
    from tinygrad.runtime.support.compiler_cpu import ClangCompiler

    device = Device["CPU"]
    binary = ClangCompiler(device.arch.split(",")).compile_cached(source)
    return CPUProgram(device, TinyELF(binary, "test", device.renderer.target, ()))


def slow_last_task() -> Any:
    from ext.tinygrad.graph.launch_plan import LaunchPlan, PooledLaunch

    program = compiled(SLOW)
    plan = LaunchPlan([PooledLaunch(program.addr, [0], core_slot=0, cores=2)])
    plan.memory.append(program)
    return plan


class Chain:
    """A native graph that tinygrad did not capture: PAIR_SUMS `length` times, in `tasks` tasks, ranges of them or one, to and fro."""

    def __init__(self, tasks: int = 6, length: int = 20):
        from ext.tinygrad.graph.launch_plan import LaunchPlan, PooledLaunch
        from ext.tinygrad.graph.task_ranges import WHOLE, Stretch

        # also as one task: the same sums in a loop
        whole = "void whole(unsigned *out, const unsigned *in, unsigned tasks) {\n"
        whole += "for (unsigned i = 0; i < tasks; i++) out[i] = in[i] + in[(i + 1) % tasks]; }"
        self.programs = [compiled(PAIR_SUMS), compiled(whole), compiled(PAIR_RANGES)]
        self.buffers = [(ctypes.c_uint32 * tasks)() for _ in range(2)]
        first, second = map(ctypes.addressof, self.buffers)
        launches = []
        for index in range(length):
            out, source = (second, first) if index % 2 == 0 else (first, second)
            alone, ranged = index % 5 >= 3, index % 5 == 1
            launches.append(
                PooledLaunch(
                    self.programs[2 if ranged else alone].addr,
                    [out, source, tasks, 0],
                    core_slot=None if alone else 3,
                    cores=1 if alone else tasks,
                    reads=[Stretch(1, 0, 4 * tasks, 0, WHOLE // 2), Stretch(1, 4, 8, WHOLE // 2, WHOLE)] if ranged else None,
                )
            )
        self.plan, self.tasks, self.length = LaunchPlan(launches), tasks, length
        self.values = array("q", [0])

    def replay(self, pool) -> list[int]:
        """Fill the input, replay, and return the result."""
        for i in range(self.tasks):
            self.buffers[0][i], self.buffers[1][i] = i + 1, 0
        pool.replay(self.plan.address, self.values.buffer_info()[0])
        return list(self.buffers[self.length % 2])

    def expected(self) -> list[int]:
        values = [i + 1 for i in range(self.tasks)]
        for _ in range(self.length):
            values = [(values[i] + values[(i + 1) % self.tasks]) % 2**32 for i in range(self.tasks)]
        return values
