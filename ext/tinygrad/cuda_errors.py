"""Errors of NVIDIA drivers in one sentence: no card, no permission, a driver that does not fit, a card that is full.

tinygrad raises a number with the driver's name for it. `install` puts a sentence in its place.
"""

import ctypes
import functools
import os
from typing import Any

from tinygrad.helpers import DEBUG, Context
from tinygrad.runtime.autogen import cuda as cu

from ext.tinygrad.tinygrad_patches import replace
from ext.tinygrad.toolchain import NVIDIA_DRIVER, BackendError

NO_MEMORY = 2
DRIVER_TOO_OLD = "update the NVIDIA driver, or install an older NVRTC"
# CUresult -> what is wrong and what to do; other numbers are reported under the driver's name
MEANINGS = {
    3: ("the NVIDIA driver is not initialised", "restart the program"),
    34: ("the driver library is a stub of a CUDA toolkit", "take the toolkit's stubs folder out of LD_LIBRARY_PATH"),
    35: ("the NVIDIA driver is too old", DRIVER_TOO_OLD),
    46: ("another program has the card for itself", "end it (`nvidia-smi` lists it), or set the card's compute mode to default"),
    100: (
        "the NVIDIA driver sees no card",
        "look at `nvidia-smi` and at CUDA_VISIBLE_DEVICES, or start the container with `docker run --gpus all`",
    ),
    101: ("the NVIDIA driver has no card of that number", "`townhall devices` lists them"),
    200: ("the driver takes the kernel for no machine code", DRIVER_TOO_OLD),
    209: ("the kernel's machine code is for another card", "update the NVIDIA driver"),
    214: ("the card's memory has an error that cannot be corrected", "look at `nvidia-smi -q -d ECC`, and restart the machine"),
    218: ("the driver cannot translate the kernel's PTX", DRIVER_TOO_OLD),
    222: ("the NVIDIA driver is older than the PTX that NVRTC made", DRIVER_TOO_OLD),
    802: ("the card's fabric is not ready", "start nvidia-fabricmanager, and wait for it"),
    803: ("the NVIDIA kernel module and libcuda.so.1 are of different versions", "restart the machine, as after every driver update"),
    804: ("the driver's compatibility package does not serve this card", "take it out of LD_LIBRARY_PATH"),
}
KERNEL_FAULTS = (700, 701, 702, 714, 715, 716, 717, 718, 719)  # after one of these the context is of no more use


class CUDAError(BackendError, RuntimeError):
    """The driver says no; `status` is its CUresult."""

    def __init__(self, status: int, words: str):
        super().__init__(words)
        self.status = status


class OutOfCUDAMemory(BackendError):
    """The device has no room."""


def sentence(status: int) -> str:
    """What a CUresult means and what to do, in one sentence."""
    if status in (100, 304, 999) and (locked := _locked()):
        fault, mend = f"this user may not open {locked}", "ask the machine's administrator for access to it"
    elif status == NO_MEMORY:
        fault, mend = "the card has no room for another program", "end one that uses it (`nvidia-smi` lists them)"
    elif status in KERNEL_FAULTS:
        fault, mend = "a kernel failed on the card", "start again; KERNELS=0 does without Townhall's own kernels"
    else:
        fault, mend = MEANINGS.get(status, ("the NVIDIA driver failed", "look at `nvidia-smi`"))
    return f"{fault} (CUDA error {status}, {_name(status)}): {mend}, or run with CPU=1"


def install() -> None:
    """Put sentences in the place of tinygrad's errors; calling it again changes nothing."""
    from tinygrad.runtime import ops_cuda

    replace(ops_cuda, "check", lambda _: check)
    replace(ops_cuda.CUDAProgram, "__init__", _explain_load)
    replace(ops_cuda.CUDAAllocator, "_alloc", _explain_memory)
    replace(ops_cuda.CUDAAllocator, "_copyin", _copy_directly)


def check(status: int) -> None:
    """Raises CUDARefusal unless the status is 0."""
    if status:
        raise CUDAError(status, sentence(status))


def free_and_total(device: Any) -> tuple[int, int] | None:
    """Bytes that an opened device has left and has in all; None where the driver does not tell."""
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    cu.cuCtxSetCurrent(device.context)
    return (free.value, total.value) if cu.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)) == 0 else None


def out_of_memory(device: Any, nbytes: int | None = None) -> OutOfCUDAMemory:
    """The sentence for an opened device without room, for nbytes where that is known."""
    from ext.tinygrad.driver_info import cuda_name

    free, total = free_and_total(device) or (0, 0)
    need = f"another {_size(nbytes)} are needed, and " if nbytes else ""
    return OutOfCUDAMemory(
        f"{device.device} ({cuda_name(device)}) refuses memory: {need}{_size(free)} of its {_size(total)} are available; lower "
        f"--max-context, take weights of fewer bits, end another program that uses the card, or run with CPU=1"
    )


def _explain_load(load: Any) -> Any:
    @functools.wraps(load)
    def told_load(self: Any, dev: Any, obj: Any, smem: int = 0) -> None:
        try:
            with Context(DEBUG=min(DEBUG.value, 4)):  # from 5 on tinygrad prints the code as a text, which machine code is not
                load(self, dev, obj, smem)
        except CUDAError as error:
            raise (out_of_memory(dev) if error.status == NO_MEMORY else error) from error
        except RuntimeError as error:  # "module load failed with status code 209: …"
            status = next((int(word.rstrip(":")) for word in str(error).split() if word.rstrip(":").isdigit()), 0)
            if not status:
                raise
            raise (out_of_memory(dev) if status == NO_MEMORY else CUDAError(status, sentence(status))) from error

    return told_load


def _explain_memory(alloc: Any) -> Any:
    @functools.wraps(alloc)
    def told_alloc(self: Any, size: int, options: Any) -> Any:
        try:
            return alloc(self, size, options)
        except CUDAError as error:
            if error.status != NO_MEMORY or options.host:
                raise
            if any(self.cache.values()):
                self.free_cache()  # buffers kept for later, in case that helps; tinygrad would do so for errors of its own
                return told_alloc(self, size, options)
            raise out_of_memory(self.dev, size) from error

    return told_alloc


LARGE = 1 << 20  # bytes from which a copy is not staged


def _copy_directly(copy: Any) -> Any:
    """tinygrad stages every copy in page-locked memory that it keeps: weights would be in the host's memory a second time."""

    @functools.wraps(copy)
    def copied(self: Any, dest: Any, src: memoryview) -> None:
        if len(src) < LARGE:
            copy(self, dest, src)
            return
        from tinygrad.helpers import mv_address

        check(cu.cuCtxSetCurrent(self.dev.context))
        check(cu.cuMemcpyHtoD_v2(dest, mv_address(src), len(src)))

    return copied


def _locked() -> str | None:
    """A device file of NVIDIA's that is there and that this user may not open."""
    for path in (NVIDIA_DRIVER, *sorted(NVIDIA_DRIVER.parent.glob("nvidia[0-9]*")), NVIDIA_DRIVER.with_name("nvidia-uvm")):
        if path.exists() and not os.access(path, os.R_OK | os.W_OK):
            return str(path)
    return None


def _name(status: int) -> str:
    """ "CUDA_ERROR_NO_DEVICE", by the driver."""
    text = ctypes.POINTER(ctypes.c_char)()
    try:
        info = cu.cuGetErrorName(status, ctypes.byref(text)) == 0
    except AttributeError:
        info = False
    return ctypes.string_at(text).decode() if info and text else "unknown to it"


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e9:.1f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.0f} MB"
