"""OpenCL drivers on the CPU: the CPU kernels' own C, compiled by the driver. Nothing else comes near its speed there.

Such drivers (PoCL, Intel's) are made of clang, so vector extensions, x86 built-ins and assembly work inside OpenCL C, and a buffer is
plain memory: every address space is the same one. The OpenCL standard promises none of it, so `obstacle` tries it out on a device, with
a small kernel whose results are known, before it is relied on.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np
from tinygrad import Tensor, UOp
from tinygrad.device import CompileError

from ext.tinygrad.buffers import upload
from ext.tinygrad.kernels.cpu.cpu_kernels import CHUNKS, CPUKernels
from ext.tinygrad.kernels.cpu.cpu_source import plain_source
from ext.tinygrad.kernels.gpu.gpu_source import launch
from ext.tinygrad.kernels.protocol import OneTokenProduct

# a CPU without these would run the kernels' plain C, where the generic OpenCL kernels are as good
NEEDS = (
    "#if (defined(__x86_64__) || defined(__i386__)) && !(defined(__AVX2__) && defined(__FMA__) && defined(__F16C__))\n#error AVX2\n#endif\n"
)

SOURCE = """
void ENTRY(f32* restrict out, const u8* restrict halves, const i8* restrict bytes, long core_id) {
  f32* mine = out + 3 * core_id;
  u8 stored[2 * LANES];
  store_half(stored, load_half(halves) * 2.0f);
  vb weights[8];
  UNROLL for (int c = 0; c < 8; c++) weights[c] = (vb)(u8)3;
  mine[0] = half_at(halves + 2 * core_id);
  mine[1] = half_at(stored + 2 * core_id);
  mine[2] = (f32)dot_chunks(weights, 0, 8, bytes, SPLATI(0), 4)[core_id];
}
"""
HALVES = np.array([0.333, -17.5, *range(14)], np.float16)
BYTES = np.arange(-11, 21, dtype=np.int8)
TASKS = 4


@functools.cache
def obstacle(device: str, wrap: Callable[[str, str, int, bool], str]) -> str | None:
    """Why the CPU kernels' sources, `wrap`ped as OpenCL kernels, cannot be relied on there; None where they can."""
    source = wrap(NEEDS + plain_source("trial", [], {}) + SOURCE, "trial", 3, False)
    out = upload(np.zeros((TASKS, 3), np.float32), device)
    try:
        (result,) = launch(source, "trial", [TASKS], 1, [out], [upload(HALVES, device), upload(BYTES, device)])
        computed = result.numpy()
    except CompileError:
        return "its compiler does not take them"
    except RuntimeError as error:  # the driver's word for anything else
        return f"it does not run them: {error}"
    halves = HALVES[:TASKS].astype(np.float32)
    expected = np.stack([halves, 2 * halves, np.full(TASKS, 3.0 * BYTES.sum())], axis=1)
    return None if np.array_equal(computed, expected) else "it computes other numbers with them than this processor does"


class CPUDriverKernels(CPUKernels):
    """Tasks become work-groups of one item each."""

    name = "opencl-cpu"
    chunks = CHUNKS  # whatever THREADS says: at the start of a kernel PoCL's threads are woken, 10 µs apart
    span_tokens = 256  # a task of half as many is too short for PoCL
    pass_tokens = 5.0  # what a pass costs beside its tokens, in tokens: 8, 32 and 128 take 4.7, 13.2 and 51.6 ms of processor time
    changes_by_row = False  # OpenCL does not hand out addresses of buffers

    @staticmethod
    def obstacle(device: str) -> str | None:
        """Why an OpenCL device cannot run these kernels, in words for a user; None where it can."""
        return obstacle(device, wrap)

    def tune(self, products: Sequence[OneTokenProduct], seconds: float | None = None) -> None:
        """Nothing: only the CPU device was measured to gain by it."""

    @staticmethod
    def _attend_splits(kv_heads: int) -> int:
        """One where several heads keep the cores busy: enqueuing a kernel that combines splits costs more than they save."""
        return 1 if kv_heads > 1 else CPUKernels._attend_splits(kv_heads)

    @staticmethod
    def _launch(
        source: str, entry: str, tasks: int, outputs: Sequence[Tensor], inputs: Sequence[Tensor] = (), start_pos: int | UOp | None = None
    ) -> list[Tensor]:
        return launch(wrap(source, entry, len(outputs) + len(inputs), start_pos is not None), entry, [tasks], 1, outputs, inputs, start_pos)


def wrap(source: str, entry: str, n_buffers: int, with_position: bool) -> str:
    """The C function as an OpenCL kernel: `long core_id` is the work-group, buffers become pointers into the one address space there is."""
    params = [f"__global uchar* restrict b{i}" for i in range(n_buffers)] + ["int start_pos"] * with_position
    arguments = [f"(void*)(ulong)b{i}" for i in range(n_buffers)] + ["start_pos"] * with_position + ["get_group_id(0)"]
    return "\n".join([
        f"#define {entry} __attribute__((always_inline)) {entry}_of",
        source,
        f"#undef {entry}",
        f"__kernel __attribute__((reqd_work_group_size(1, 1, 1))) void {entry}({', '.join(params)}) {{",
        f"  {entry}_of({', '.join(arguments)});",
        "}",
    ])  # fmt: skip
