"""Which kernel set serves an OpenCL device: by what its driver says it is, and by what it can do."""

import ctypes
import sys

from tinygrad.device import Device

from ext.tinygrad import opencl
from ext.tinygrad.kernels.opencl.cpu_driver import CPUDriverKernels
from ext.tinygrad.kernels.protocol import Kernels
from ext.tinygrad.kernels.twins import TwinKernels


def kernels_on(device: str) -> Kernels:
    """The CPU's own sources where the driver runs on a CPU; a driver that cannot take them says why on stderr."""
    if kind_of(device) != "cpu":
        return TwinKernels()
    if (reason := CPUDriverKernels.obstacle(device)) is None:
        return CPUDriverKernels()
    print(f"townhall: the CPU kernels cannot serve {device} ({reason}); running on tinygrad's generated code", file=sys.stderr)
    return TwinKernels()


def kind_of(device: str) -> str:
    """ "cpu", "gpu" or "accelerator", as the driver says."""
    address = ctypes.cast(Device[device].cl_dev, ctypes.c_void_p).value
    return next(known.kind for known in opencl.devices() if known.handle == address)
