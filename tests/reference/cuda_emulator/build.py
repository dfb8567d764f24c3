"""Builds the emulated libcuda.so and libnvrtc.so with clang, once per content of their sources."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from ext.tinygrad.toolchain import find_compiler, processor_key

SOURCES = Path(__file__).parent / "c"
DRIVER = ("settings.cpp", "device.cpp", "memory.cpp", "module.cpp", "graph.cpp", "fibers.cpp", "grid.cpp", "faults.cpp")
NVRTC = ("settings.cpp", "kernels.cpp", "ptx.cpp", "nvrtc.cpp")
FLAGS = (
    *("-std=c++20", "-O2", "-fPIC", "-shared", "-nostdlib", "-nostdlibinc", "-fuse-ld=lld", "-fvisibility=hidden"),
    *("-fno-exceptions", "-fno-rtti", "-fno-threadsafe-statics", "-fno-stack-protector", "-fno-strict-aliasing", "-Wall", "-Wextra"),
    *("-Wno-unused-parameter", "-Werror"),
)


class Libraries(NamedTuple):
    """The two libraries, and a folder beside them for what else is worth keeping."""

    cuda: Path
    nvrtc: Path
    folder: Path


def obstacle() -> str | None:
    """Why the emulator cannot be built here, None where it can."""
    if sys.platform != "linux":
        return "the CUDA emulator runs on Linux"
    return None if _clang() else "the CUDA emulator needs clang 17 or newer"


def _clang() -> str | None:
    return find_compiler()


def build() -> Libraries:
    """Paths of the libraries, built where they are not there yet; safe when several processes build at once."""
    clang = _clang()
    assert clang, obstacle()
    content = hashlib.sha256(repr((clang, FLAGS, DRIVER, NVRTC)).encode())
    for file in sorted(SOURCES.iterdir()):
        content.update(file.name.encode() + b"\0" + file.read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "townhall-tests"
    # kernels are compiled for the very processor
    folder = cache / f"cuda_emulator-{content.hexdigest()[:16]}-{processor_key()}"
    libraries = Libraries(folder / "libcuda.so", folder / "libnvrtc.so", folder)
    if not libraries.nvrtc.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not libraries.nvrtc.exists():
                _build_into(folder, clang)
    return libraries


def _build_into(folder: Path, clang: str) -> None:
    """Everything is built in another folder, which then gets the name: a build that was cut off leaves nothing half done."""
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    for header in SOURCES.glob("*.h"):
        shutil.copy(header, part)
    for name, sources in (("libcuda.so", DRIVER), ("libnvrtc.so", NVRTC)):
        command = [clang, *FLAGS, f'-DCLANG="{clang}"', *(str(SOURCES / source) for source in sources), "-o", str(part / name)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"the CUDA emulator does not compile:\n{done.stderr}")
    part.rename(folder)
