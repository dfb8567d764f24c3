"""OpenCL platforms and devices, as their drivers describe them; and the order in which tinygrad sees them.

tinygrad looks at the first platform only. Where several drivers are installed (PoCL beside a GPU's, say) that is a matter of luck, so the
devices of all platforms are put in one order, GPUs first, and handed to tinygrad: `DEV=CL:1` is the second that `townhall devices` lists.
Needs OPENCL_PATH and its companions in place (opencl_loader.prepare).
"""

import ctypes
import functools
from dataclasses import dataclass
from typing import Any, Literal

from ext.tinygrad.tinygrad_patches import replace
from ext.tinygrad.toolchain import BackendError

NO_LOADER = (
    "no OpenCL loader (libOpenCL.so.1) was found: install one with `pip install 'pyopencl[pocl]'` (Linux, x86_64) or from your "
    "distribution (Debian and Ubuntu: `apt install ocl-icd-libopencl1` and your device's driver), or run with CPU=1"
)
NO_PLATFORM = (
    "the OpenCL loader found no platform, so no driver is installed: install your device's driver, or PoCL to run OpenCL on the CPU "
    "(`pip install 'pyopencl[pocl]'`; Debian and Ubuntu: `apt install pocl-opencl-icd`), or run with CPU=1"
)


@dataclass(frozen=True)
class CLDeviceInfo:
    """One device of one platform, in the driver's words."""

    handle: int  # cl_device_id
    platform: str
    version: str
    name: str
    kind: Literal["cpu", "gpu", "accelerator"]
    memory: int  # bytes
    units: int = 1  # compute units
    most_items: int = 1  # of a work-group
    local_bytes: int = 0  # local memory of a work-group
    largest_buffer: int = 0  # bytes
    extensions: tuple[str, ...] = ()

    @property
    def driver(self) -> str:
        return f"{self.platform} {self.version}"


@functools.cache
def devices() -> tuple[CLDeviceInfo, ...]:
    """The devices of every platform, GPUs first, then accelerators, then CPUs. BackendError: no loader, no platform, no device."""
    from tinygrad.runtime.autogen import opencl as cl

    count = ctypes.c_uint32()
    try:
        status = cl.clGetPlatformIDs(0, None, count)
    except AttributeError as error:  # how tinygrad says that the library did not load
        raise BackendError(NO_LOADER) from error
    if status != 0 or count.value == 0:  # -1001: no platform
        raise BackendError(NO_PLATFORM)
    platforms = (cl.cl_platform_id * count.value)()
    cl.clGetPlatformIDs(count.value, platforms, None)
    found: dict[int, CLDeviceInfo] = {}  # by handle: a driver that is registered twice, by path and by name, shows its devices twice
    names = []
    for platform in platforms:
        names.append(_platform_name(cl, platform))
        number = ctypes.c_uint32()
        if cl.clGetDeviceIDs(platform, cl.CL_DEVICE_TYPE_ALL, 0, None, number) != 0 or number.value == 0:
            continue
        handles = (cl.cl_device_id * number.value)()
        cl.clGetDeviceIDs(platform, cl.CL_DEVICE_TYPE_ALL, number.value, handles, None)
        for handle in handles:
            found.setdefault((device := _read(cl, names[-1], handle)).handle, device)
    if not found:
        raise BackendError(f"the OpenCL driver ({', '.join(names)}) has no device to drive: look at it with `clinfo`, or run with CPU=1")
    return tuple(sorted(found.values(), key=lambda device: ("gpu", "accelerator", "cpu").index(device.kind)))


def order_devices(index: int = 0) -> None:
    """Make tinygrad's CL, CL:1, … the devices of `devices()`, before it opens one. BackendError when there is no such index."""
    known = devices()
    if index >= len(known):
        last = f"CL:{len(known) - 1}" if len(known) > 1 else "CL"
        raise BackendError(f"DEV=CL:{index} names no device: the last one is {last} ({known[-1].name}); `townhall devices` lists them")
    from tinygrad.runtime.autogen import opencl as cl
    from tinygrad.runtime.ops_cl import CLDevice

    if CLDevice.device_ids is None:
        handles = (cl.cl_device_id * len(known))()
        for slot, device in enumerate(known):
            handles[slot] = ctypes.cast(device.handle, cl.cl_device_id)
        CLDevice.device_ids = handles
    replace(cl, "clBuildProgram", _build_quietly)


def info_of(opened: Any) -> CLDeviceInfo:
    """What the driver says of a device that tinygrad has opened."""
    address = ctypes.cast(opened.cl_dev, ctypes.c_void_p).value
    return next(device for device in devices() if device.handle == address)


def _build_quietly(build: Any) -> Any:
    """clBuildProgram without warnings (the standard's own `-w`): PoCL counts them on stderr, amid a talk. Errors stay."""

    @functools.wraps(build)
    def quiet_build(program: Any, count: int, device: Any, options: bytes | None, *rest: Any) -> Any:
        return build(program, count, device, b"-w" if options is None else options, *rest)

    return quiet_build


def _read(cl: Any, platform: str, handle: Any) -> CLDeviceInfo:
    bits = _number(cl, handle, cl.CL_DEVICE_TYPE)
    kind: Literal["cpu", "gpu", "accelerator"] = (
        "gpu" if bits & cl.CL_DEVICE_TYPE_GPU else "cpu" if bits & cl.CL_DEVICE_TYPE_CPU else "accelerator"
    )
    version, name, extensions = (
        _text(cl.clGetDeviceInfo, handle, key) for key in (cl.CL_DRIVER_VERSION, cl.CL_DEVICE_NAME, cl.CL_DEVICE_EXTENSIONS)
    )
    return CLDeviceInfo(
        handle=ctypes.cast(handle, ctypes.c_void_p).value or 0,
        platform=platform,
        version=version,
        name=name,
        kind=kind,
        memory=_number(cl, handle, cl.CL_DEVICE_GLOBAL_MEM_SIZE),
        units=_number(cl, handle, cl.CL_DEVICE_MAX_COMPUTE_UNITS, ctypes.c_uint32),
        most_items=_number(cl, handle, cl.CL_DEVICE_MAX_WORK_GROUP_SIZE),
        local_bytes=_number(cl, handle, cl.CL_DEVICE_LOCAL_MEM_SIZE),
        largest_buffer=_number(cl, handle, cl.CL_DEVICE_MAX_MEM_ALLOC_SIZE),
        extensions=tuple(extensions.split()),
    )


def _number(cl: Any, handle: Any, key: int, kind: type[ctypes.c_uint64] | type[ctypes.c_uint32] = ctypes.c_uint64) -> int:
    number = kind()
    cl.clGetDeviceInfo(handle, key, ctypes.sizeof(number), ctypes.byref(number), None)
    return int(number.value)


def _platform_name(cl: Any, platform: Any) -> str:
    return _text(cl.clGetPlatformInfo, platform, cl.CL_PLATFORM_NAME)


def _text(query: Any, handle: Any, key: int) -> str:
    size = ctypes.c_size_t()
    query(handle, key, 0, None, size)
    text = ctypes.create_string_buffer(max(1, size.value))
    query(handle, key, size.value, text, None)
    return " ".join(text.value.decode(errors="replace").split())
