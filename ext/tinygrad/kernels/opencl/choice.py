"""Which kernel set serves an OpenCL device: by what its driver says it is, and by what it can do."""

import os
import sys

from tinygrad.device import Device

from ext.tinygrad.kernels.opencl.cpu_driver import CPUDriverKernels
from ext.tinygrad.kernels.opencl.kernels import OpenCLKernels
from ext.tinygrad.kernels.opencl.tuning import Tuning
from ext.tinygrad.kernels.protocol import Kernels
from ext.tinygrad.kernels.twins import TwinKernels
from ext.tinygrad.opencl import info_of


def kernels_on(device: str) -> Kernels:
    """The CPU's own sources where the driver runs on a CPU, OpenCL C everywhere else.

    A driver on the CPU that cannot take them says why on stderr and gets the twins, which suit a CPU better than a GPU's kernels do;
    KERNELS=opencl asks for those all the same."""
    info = info_of(Device[device])
    if info.kind != "cpu" or os.environ.get("KERNELS") == "opencl":
        return OpenCLKernels(Tuning.of(info))
    if (reason := CPUDriverKernels.obstacle(device)) is None:
        return CPUDriverKernels()
    print(f"townhall: the CPU kernels cannot serve {device} ({reason}); running on tinygrad's generated code", file=sys.stderr)
    return TwinKernels()
