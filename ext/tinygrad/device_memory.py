"""How much memory a device has left, by its driver's word."""

import ctypes
from typing import Any

from tinygrad.device import Device
from tinygrad.helpers import GlobalCounters

CL_DEVICE_GLOBAL_FREE_MEMORY_AMD = 0x4039  # cl_amd_device_attribute_query: kilobytes free in all, then in the largest block


def available_memory(device: str) -> int | None:
    """Bytes that an opened tinygrad device could still give; None for the CPU, drivers on it, and drivers that do not tell.

    OpenCL has no word for free memory: but for AMD's extension it is what the device has less what this process holds, so that another
    program's share is not seen."""
    kind = device.split(":")[0]
    if kind == "CUDA":
        from ext.tinygrad.cuda_errors import free_and_total

        found = free_and_total(Device[device])
        return found[0] + _kept_for_later(device) if found else None
    if kind == "CL":
        return _opencl(device)
    return None


def _opencl(device: str) -> int | None:
    from tinygrad.runtime.autogen import opencl as cl

    from ext.tinygrad.opencl import info_of

    opened: Any = Device[device]
    info = info_of(opened)
    if info.kind == "cpu":
        return None
    if "cl_amd_device_attribute_query" in info.extensions:
        free = (ctypes.c_size_t * 2)()
        if cl.clGetDeviceInfo(opened.cl_dev, CL_DEVICE_GLOBAL_FREE_MEMORY_AMD, ctypes.sizeof(free), free, None) == 0 and free[0]:
            return free[0] * 1024 + _kept_for_later(device)
    return max(0, info.memory - GlobalCounters.mem_used_per_device[device]) or None


def _kept_for_later(device: str) -> int:
    """Bytes of buffers that are free and that tinygrad keeps for the next of their size; it gives them back when memory runs out."""
    cache = Device[device].allocator.cache
    return sum(size * len(buffers) for (size, options), buffers in cache.items() if not (options and options.host))
