"""CPU=1 / GPU=1 / DEV → one tinygrad device, opened, proven by a real kernel, and described in the words of its own driver.

What a person asked for and what they got are two things: everything said here is read from the device after a kernel ran on it and its
result was right. device_selection.py looks at every device.
"""

import array
import functools
import os
import re
import subprocess
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from ext.tinygrad import kernel_cache, thread_state
from ext.tinygrad.deferred_imports import light_imports
from ext.tinygrad.kernel_cache import compiler_identity, queue_programs
from ext.tinygrad.toolchain import ACCELERATORS, BackendError, Request, device_of, missing_drivers, prepare_environment

__all__ = ["Backend", "BackendError", "Kind", "choose", "describe_device", "open_backend"]

Kind = Literal["cpu", "gpu", "accelerator"]


@dataclass(frozen=True)
class Backend:
    """One opened device: `device` is tinygrad's name, `driver`, `name` and `kind` are what the driver says of itself."""

    device: str
    driver: str
    name: str
    kind: Kind
    requested: str
    passed_over: tuple[str, ...] = ()  # better devices that failed to open, each with its reason
    memory: int = 0  # bytes, 0 where the driver does not tell
    extensions: tuple[str, ...] = ()  # of an OpenCL driver
    bandwidth: float = 0.0  # bytes a second, measured over the weights it holds; 0 before that

    @property
    def is_gpu(self) -> bool:
        return self.kind == "gpu"

    def describe(self) -> str:
        """One line for people; speaks of a GPU only where the driver does."""
        if self.device.split(":")[0] == "CPU":
            line = f"{self.device}: {self.name}, {self.driver}"
        elif self.is_gpu:
            line = f"{self.device}: {self.name} (GPU), {self.driver}"
        elif self.kind == "cpu":
            line = f"{self.device}: {self.name}, {self.driver}: {'an OpenCL' if self.device.startswith('CL') else 'a'} driver on the CPU"
        else:
            line = f"{self.device}: {self.name} ({self.kind}), {self.driver}"
        return f"{line} [passed over: {'; '.join(self.passed_over)}]" if self.passed_over else line

    def to_json(self) -> dict[str, Any]:
        lists = {"passed_over": list(self.passed_over), "extensions": list(self.extensions)}
        return {**asdict(self), **lists, "description": self.describe()}


def open_backend(require: str | None = None) -> Backend:
    """The device that the environment asks for, or the best one that works; it becomes tinygrad's default.

    require="gpu" (or "cpu") raises BackendError unless the driver calls the device one."""
    if require not in (None, "gpu", "cpu"):
        raise BackendError(f"--require {require} is not known; pass --require gpu")
    request = prepare_environment()
    kernel_cache.install()
    thread_state.install()
    backend = _first_that_works(request)
    if require is not None and backend.kind != require:
        raise BackendError(
            f"--require {require}: the weights would sit on a {backend.kind.upper() if backend.kind != 'accelerator' else backend.kind} "
            f"by its driver's word ({backend.describe()}); "
            f"{'install a driver for your device (`townhall devices` lists what works)' if require == 'gpu' else 'set CPU=1'}, "
            f"or leave --require away"
        )
    return backend


def _first_that_works(request: Request) -> Backend:
    passed_over: list[str] = []
    opencl_gpu = "CL" in map(device_of, request.targets) and _opencl_has_gpu()
    for target in _in_order(request, opencl_gpu):
        device = _indexed(device_of(target), request.index)
        try:
            backend = _open(target, device)
        except BackendError as error:
            if len(request.targets) == 1:
                raise
            passed_over.append(f"{device}: {error}")
            continue
        _make_default(target, device)
        return replace(backend, requested=request.text, passed_over=tuple(passed_over))
    raise BackendError(f"{request.text}: no device works: {'; '.join(passed_over)}")


def choose(request: Request, usable: dict[str, Backend]) -> str | None:
    """Which of the usable devices `open_backend` would open for `request`."""
    for target in _in_order(request, "CL" in usable and usable["CL"].is_gpu):
        device = _indexed(device_of(target), request.index)
        if device in usable:
            return device
    return None


def _in_order(request: Request, opencl_gpu: bool) -> list[str]:
    """The targets to try: OpenCL, which has kernels of our own, first where it drives a GPU; where it does not, it is the last resort of
    GPU=1, and no better than the CPU itself where nothing was asked for."""
    if len(request.targets) == 1:
        return list(request.targets)
    others = [target for target in request.targets if device_of(target) != "CL"]
    opencl = [target for target in request.targets if device_of(target) == "CL"]
    return opencl + others if opencl_gpu else others if request.automatic else others + opencl


def describe_device(device: str) -> Backend:
    """The device that holds given weights ("CPU", "CL:1", …), described as its driver does; runs a kernel there once."""
    request = prepare_environment()
    target = next((target for target in request.targets if device_of(target) == device.split(":")[0]), device.split(":")[0])
    backend = _open(target, device.removesuffix(":0"))
    return replace(backend, requested=request.text)


@functools.cache
def _open(target: str, device: str) -> Backend:
    """Open `device`, run a kernel there, check its result, ask its driver. BackendError carries the reason when any of it fails."""
    kind_of_device = device.split(":")[0]
    if kind_of_device == "CL":
        from ext.tinygrad import opencl, opencl_errors

        opencl.order_devices(0 if ":" not in device else int(device.split(":")[1]))
        opencl_errors.install()
    elif kind_of_device == "CUDA":
        from ext.tinygrad import cuda

        cuda.prepare_device(int(device.split(":")[1]) if ":" in device else 0)
    elif kind_of_device == "CPU":
        _check_compiler()
    with light_imports():
        from tinygrad import Device
        from tinygrad.helpers import Context

    try:
        # the target may name an interface or a renderer
        with light_imports(), Context(DEV=target), queue_programs() if kind_of_device == "CPU" else nullcontext():
            opened = Device[device]
            _run_check_kernel(device)
    except BackendError:
        raise
    except Exception as error:  # drivers and tinygrad's wrappers raise whatever they like
        raise BackendError(f"{device} cannot be used: {_reason(kind_of_device, error)}; `townhall devices` lists what can") from error
    from ext.tinygrad import driver_info

    driver, name, kind = driver_info.DRIVERS.get(kind_of_device, driver_info.unknown)(opened)
    memory, extensions = driver_info.memory(kind_of_device, opened), driver_info.extensions(opened)
    return Backend(device, driver, name, kind, "", memory=memory, extensions=extensions)


def _run_check_kernel(device: str) -> None:
    """A kernel whose result is known: a device that opens but computes nothing, or nonsense, is no device."""
    from tinygrad import Device, Tensor

    values = [0.0, 1.0, -2.5, 3.0, 1024.0]
    if type(Device[device].renderer).__name__ == "ClangRenderer":
        result = _compute_with_clang(device, values)
    else:
        result = (Tensor(values, device=device) * 3.0 + 1.0).tolist()
    if result != [3.0 * value + 1.0 for value in values]:
        raise BackendError(f"{device} computes wrong numbers ({result} from a check kernel); choose another device with DEV=… or CPU=1")


def _compute_with_clang(device: str, values: list[float]) -> list[float]:
    """3 x + 1 of each, compiled, loaded and called as every kernel is, but written here: generating it would take 50 ms of each start."""
    from tinygrad import Device
    from tinygrad.device import TinyELF

    source = f"void check(float* out, const float* in) {{ for (int i = 0; i < {len(values)}; i++) out[i] = in[i] * 3.0f + 1.0f; }}"
    opened = Device[device]
    compiled = opened.renderer.compiler.compile_cached(f"// {compiler_identity(os.environ.get('CC', 'clang'))}\n{source}")
    program = opened.runtime(TinyELF(compiled, "check", opened.renderer.target, ()))
    given, computed = array.array("f", values), array.array("f", [0.0] * len(values))
    allocator = opened.allocator
    buffers = [allocator.alloc(given.itemsize * len(given)) for _ in range(2)]
    allocator._copyin(buffers[1], memoryview(given).cast("B"))
    program(*buffers)
    allocator._copyout(memoryview(computed).cast("B"), buffers[0])
    return computed.tolist()


def _check_compiler() -> None:
    from ext.tinygrad.toolchain import NO_COMPILER, find_compiler

    if find_compiler() is None:
        raise BackendError(NO_COMPILER)


def _make_default(target: str, device: str) -> None:
    """Tensors made without a device, and our child processes, use the same one."""
    from tinygrad.helpers import DEV, Target

    DEV.value = Target(device=device) if ":" in device else target
    os.environ["DEV"] = target


def _indexed(device: str, index: int) -> str:
    return f"{device}:{index}" if index else device


def _opencl_has_gpu() -> bool:
    from ext.tinygrad import opencl

    try:
        return opencl.devices()[0].kind == "gpu"
    except BackendError:
        return False


def _reason(device: str, error: BaseException) -> str:
    """Why a device failed, in one sentence: what the machine lacks for it if we know, else the first line of what was raised."""
    if device in (missing := missing_drivers()):
        return missing[device]
    while isinstance(error, BaseExceptionGroup):  # tinygrad collects one error per interface that it tried
        error = error.exceptions[0]
    if isinstance(error, ModuleNotFoundError) and "runtime.ops_" in str(error):
        return f"tinygrad has no such device; write DEV=CPU, CL, {', '.join(ACCELERATORS)}"
    if isinstance(error, subprocess.CalledProcessError):
        return f"the compiler {error.cmd[0]} failed on a first kernel (exit code {error.returncode})"
    text = " ".join(str(error).split()) or type(error).__name__
    if match := re.match(r"failed to load library (\w+)", text):
        return f"its library lib{match[1]} is not installed"
    return text if len(text) <= 200 else text[:197] + "…"
