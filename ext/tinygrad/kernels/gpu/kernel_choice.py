"""Which kernel set serves an OpenCL or CUDA device: by what its driver says it is, and by what it can do."""

import os
import sys

from tinygrad.device import Device

from ext.tinygrad.kernels.gpu.cpu_driver import CPUDriverKernels
from ext.tinygrad.kernels.gpu.gpu_kernels import GPUKernels
from ext.tinygrad.kernels.gpu.tuning import Tuning
from ext.tinygrad.kernels.protocol import Kernels
from ext.tinygrad.kernels.reference import ReferenceKernels
from ext.tinygrad.opencl import info_of


def kernels_on(device: str) -> Kernels:
    """The kernels for GPUs; on an OpenCL driver for the CPU the CPU's own sources.

    A driver on the CPU that cannot take them says why on stderr and gets the twins, which suit a CPU better than a GPU's kernels do;
    KERNELS=gpu asks for those all the same."""
    if device.split(":")[0] == "CUDA" or info_of(Device[device]).kind != "cpu" or os.environ.get("KERNELS") == "gpu":
        return GPUKernels(Tuning.of(device))
    if (reason := CPUDriverKernels.obstacle(device)) is None:
        return CPUDriverKernels()
    print(f"townhall: the CPU kernels cannot serve {device} ({reason}); running on tinygrad's generated code", file=sys.stderr)
    return ReferenceKernels()
