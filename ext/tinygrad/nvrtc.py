"""Where NVRTC is, NVIDIA's compiler library for CUDA C, and its headers: passed to tinygrad in NVRTC_PATH before it is imported.

It comes as a wheel (the extra `cuda`), with a CUDA toolkit, or with other packages; drivers do not have it. Nothing is loaded here.
"""

import importlib.util
import os
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from ext.tinygrad import shared_libraries

REQUIREMENT = "nvidia-cuda-nvrtc-cu12==12.9.86"  # as the extra `cuda` of pyproject.toml has it, and the next
HEADERS = "nvidia-cuda-runtime-cu12==12.9.79"
DRIVER_VERSION = Path("/proc/driver/nvidia/version")
TOOLKITS = Path("/usr/local")
# the first driver branch of each CUDA version: a driver runs machine code of its own version and of older ones
DRIVER_BRANCHES = ((580, 13), (525, 12), (450, 11))
_TARGET = {"x86_64": "x86_64-linux", "aarch64": "sbsa-linux"}.get(platform.machine(), platform.machine())
VERSIONS = (12, 13, 11)  # of libnvrtc.so.N, best first: 12 knows the most cards and drivers; older ones do not tell which cards they know


def prepare() -> None:
    """Set NVRTC_PATH where a user has not: the first library that the driver can run the code of, else the first at all."""
    if os.environ.get("NVRTC_PATH") or sys.platform != "linux":
        return
    if library := find():
        os.environ["NVRTC_PATH"] = str(library)


def find() -> Path | None:
    """The library to use, None where there is none. Wheels come before toolkits, and these before the system's folders."""
    found, most = list(_libraries()), driver_major()
    runs = (library for library in found if most is None or (version(library) or 0) <= most)
    return next(runs, found[0] if found else None)


def version(library: Path) -> int | None:
    """The major version in a library's file name, links followed: 12 of libnvrtc.so.12."""
    for name in (library.name, library.resolve().name):
        if match := re.search(r"\.so\.(\d+)", name):
            return int(match[1])
    return None


def driver_major() -> int | None:
    """The CUDA version that the loaded NVIDIA driver knows, 12 for 12.x; None where the system does not tell (WSL)."""
    try:
        text = DRIVER_VERSION.read_text()
    except OSError:
        return None
    match = re.search(r"Kernel Module.*?\s(\d+)\.\d+", text)
    return next((major for branch, major in DRIVER_BRANCHES if match and int(match[1]) >= branch), None)


def include_folders(library: Path) -> list[Path]:
    """Folders with the header for halves, cuda_fp16.h, which the code that tinygrad generates includes: of the same package first."""
    near = [folder / "include" for folder in library.parent.parents[:3]]  # up to three: a toolkit's libraries may be in targets/…/lib
    # wheels keep these headers in the runtime's folder
    wheels = [folder / name / "include" for folder in _nvidia_folders() for name in (f"cu{version(library)}", "cuda_runtime")]
    system = [Path(folder) for folder in ("/usr/local/cuda/include", "/opt/cuda/include", "/usr/include")]
    return [folder for folder in (*near, *wheels, *system) if (folder / "cuda_fp16.h").is_file()]


def builtins_of(library: Path) -> Path | None:
    """The library that NVRTC opens by name when it compiles; the loader does not look beside NVRTC for it (wheels of 13.x)."""
    return next((file for file in sorted(library.resolve().parent.glob("libnvrtc-builtins.so.*"))), None)


def install_command(requirement: str = REQUIREMENT) -> str:
    """The command that installs NVRTC, or another part of the extra `cuda`, into the Python that runs."""
    import importlib.metadata  # here alone: it takes 0.01 s, which no other start need wait for

    try:
        extras = importlib.metadata.metadata("townhall").get_all("Provides-Extra") or []
    except importlib.metadata.PackageNotFoundError:
        extras = []
    active = os.environ.get("VIRTUAL_ENV") == sys.prefix or sys.prefix == sys.base_prefix
    pip = "pip" if active else f"{_short(sys.executable)} -m pip"
    wanted = "'townhall[cuda]'" if "cuda" in extras else requirement
    return f"{pip} install {wanted}"


def _libraries() -> Iterator[Path]:
    for folder in _nvidia_folders():
        for number in VERSIONS:
            for name in ("cuda_nvrtc", f"cu{number}"):
                yield from _existing(folder / name / "lib" / f"libnvrtc.so.{number}")
    homes = [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH", "CUDA_ROOT", "CONDA_PREFIX") if os.environ.get(name)]
    versioned = sorted(TOOLKITS.glob("cuda-*"), key=lambda path: [int(n) for n in re.findall(r"\d+", path.name)], reverse=True)
    for home in (*homes, TOOLKITS / "cuda", *versioned, Path("/opt/cuda")):
        for folder in (home / "lib64", home / "lib", home / "targets" / _TARGET / "lib"):
            yield from _existing(folder / "libnvrtc.so")
            for number in VERSIONS:
                yield from _existing(folder / f"libnvrtc.so.{number}")
    for number in VERSIONS:
        if found := shared_libraries.find(f"libnvrtc.so.{number}"):
            yield found


def _existing(path: Path) -> Iterator[Path]:
    if path.is_file() and shared_libraries.built_for_this_python(path):
        yield path


def _nvidia_folders() -> list[Path]:
    """Where NVIDIA's wheels put their parts: one folder per place that Python looks for packages in."""
    spec = importlib.util.find_spec("nvidia")  # a namespace package: nothing is imported
    return [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []


def _short(path: str) -> str:
    """Relative to the working directory where it lies below."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative
