"""OpenCL drivers on the CPU: the CPU kernels' own C, compiled by the driver. Nothing else comes near its speed there.

Such drivers (PoCL, Intel's) are made of clang, so vector extensions, x86 built-ins and assembly work inside OpenCL C, and a buffer is
plain memory: every address space is the same one. trial.py tries that out on a device before it is relied on.
"""

from collections.abc import Sequence

from tinygrad import Tensor, UOp

from ext.tinygrad.kernels.cpu.cpu_kernels import CPUKernels
from ext.tinygrad.kernels.gpu.launch import launch
from ext.tinygrad.kernels.gpu.trial import obstacle


class CPUDriverKernels(CPUKernels):
    """Tasks become work-groups of one item each."""

    name = "opencl-cpu"

    @staticmethod
    def obstacle(device: str) -> str | None:
        """Why an OpenCL device cannot run these kernels, in words for a user; None where it can."""
        return obstacle(device, wrap)

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
