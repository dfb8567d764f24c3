"""Whether a driver on the CPU runs what the CPU kernels are made of: tried with a small kernel whose results are known.

Address spaces that are one and the same, vector extensions, the built-in or inline instructions of the dot product and of halves: the
OpenCL standard promises none of it, and PoCL and Intel's runtime have it all.
"""

import functools
from collections.abc import Callable

import numpy as np
from tinygrad.device import CompileError

from ext.tinygrad.buffers import upload
from ext.tinygrad.kernels.cpu.cpu_source import plain_source
from ext.tinygrad.kernels.gpu.launch import launch

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
