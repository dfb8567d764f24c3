"""What each kind of driver says of an opened device: (driver, device name, kind). Nothing is guessed: no answer reads "unknown"."""

import ctypes
import functools
import os
import platform
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from ext.tinygrad.kernel_cache import compiler_says

Answer = tuple[str, str, Literal["cpu", "gpu", "accelerator"]]


def cpu(opened: Any) -> Answer:
    renderer = type(opened.renderer).__name__.removesuffix("Renderer")
    compiler = f"clang {compiler_version(os.environ.get('CC', 'clang'))}" if renderer == "Clang" else renderer
    return f"tinygrad CPU, {compiler}", processor_name(), "cpu"


def opencl(opened: Any) -> Answer:
    from ext.tinygrad.opencl import info_of

    info = info_of(opened)
    return info.driver, info.name, info.kind


def cuda(opened: Any) -> Answer:
    from tinygrad.runtime.autogen import cuda as cu

    version = ctypes.c_int()
    cu.cuDriverGetVersion(ctypes.byref(version))
    return f"CUDA driver {version.value // 1000}.{version.value % 1000 // 10}", cuda_name(opened), "gpu"


def cuda_name(opened: Any) -> str:
    """The name of an opened CUDA device."""
    from tinygrad.runtime.autogen import cuda as cu

    name = ctypes.create_string_buffer(256)
    return name.value.decode(errors="replace") if cu.cuDeviceGetName(name, 256, opened.cu_device) == 0 else "unknown"


def metal(opened: Any) -> Answer:
    from tinygrad.runtime.ops_metal import from_ns_str

    return f"Metal, macOS {platform.mac_ver()[0]}", from_ns_str(opened.sysdevice.name()), "gpu"


def by_architecture(opened: Any) -> Answer:
    """AMD, NV, QCOM, HIP: drivers for GPUs alone; tinygrad keeps the architecture that they report."""
    interface = f" ({type(opened.iface).__name__.removesuffix('Iface')})" if hasattr(opened, "iface") else ""
    return f"tinygrad {opened.device.split(':')[0]}{interface}", str(opened.arch or "unknown"), "gpu"


def emulated(opened: Any) -> Answer:
    return f"tinygrad {opened.device}, interpreted", processor_name(), "cpu"


def unknown(opened: Any) -> Answer:
    """A device whose driver we cannot ask is no GPU by its word."""
    return f"tinygrad {opened.device}", str(opened.arch or "unknown"), "accelerator"


DRIVERS: dict[str, Callable[[Any], Answer]] = {
    "CPU": cpu,
    "CL": opencl,
    "CUDA": cuda,
    "METAL": metal,
    "AMD": by_architecture,
    "NV": by_architecture,
    "QCOM": by_architecture,
    "HIP": by_architecture,
    "PYTHON": emulated,
}


def memory(kind_of_device: str, opened: Any) -> int:
    """Bytes of memory that the device has, 0 where the driver does not report it."""
    if kind_of_device == "CL":
        from ext.tinygrad.opencl import info_of

        return info_of(opened).memory
    if kind_of_device == "CUDA":
        from tinygrad.runtime.autogen import cuda as cu

        size = ctypes.c_size_t()
        return size.value if cu.cuDeviceTotalMem_v2(ctypes.byref(size), opened.cu_device) == 0 else 0
    if kind_of_device == "CPU" and "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 0


def extensions(opened: Any) -> tuple[str, ...]:
    """What an OpenCL driver can beyond the standard."""
    return tuple(getattr(opened, "device_exts", ()))


def processor_name() -> str:
    """The processor's own name, from the kernel where it tells."""
    try:
        info = re.search(r"^(?:model name|Model|cpu model)\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(errors="replace"), re.MULTILINE)
    except OSError:
        info = None
    if info:
        return " ".join(info[1].split())
    return platform.processor() or platform.machine() or "unknown"


@functools.cache
def compiler_version(compiler: str) -> str:
    """ "23.1.4" from `clang --version`."""
    try:
        text = compiler_says([compiler, "--version"])
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    match = re.search(r"clang version (\S+)", text)
    return match[1] if match else "unknown"
