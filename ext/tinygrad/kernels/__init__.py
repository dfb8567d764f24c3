"""Which kernel set serves a device, and which of them has gradients."""

import os
import sys

from ext.tinygrad.kernels.protocol import Kernels
from ext.tinygrad.kernels.training_kernels import TrainingKernels


def kernels_for(device: str) -> Kernels:
    """The fused kernels where this device has them, else (or under KERNELS=0) the plain-Tensor set.

    A device that should have them and cannot use them says why on stderr.
    """
    from ext.tinygrad.kernels.reference import ReferenceKernels

    kind = device.split(":")[0]
    if os.environ.get("KERNELS", "1") == "0" or kind not in ("CPU", "CL", "CUDA"):
        return ReferenceKernels()
    if kind in ("CL", "CUDA"):
        from ext.tinygrad.kernels.gpu.kernel_choice import kernels_on

        return kernels_on(device)
    from ext.tinygrad.kernels.cpu.cpu_kernels import CPUKernels

    if (reason := CPUKernels.available()) is None:
        return CPUKernels()
    print(f"townhall: the CPU kernels cannot serve ({reason}); running on tinygrad's generated code", file=sys.stderr)
    return ReferenceKernels()


def training_kernels_for(kernels: Kernels) -> TrainingKernels | None:
    """What trains over the weights that a kernel set packed; None where nothing does."""
    from ext.tinygrad.kernels.reference import ReferenceKernels

    if isinstance(kernels, ReferenceKernels):
        from ext.tinygrad.kernels.reference_training import ReferenceTraining

        return ReferenceTraining()
    if kernels.name == "cpu":
        from ext.tinygrad.kernels.cpu.cpu_kernels import CPUKernels
        from ext.tinygrad.kernels.cpu.cpu_training import CPUTraining

        assert isinstance(kernels, CPUKernels)
        return CPUTraining(kernels)
    return None
