"""A vendor's OpenCL library for tests (stub_vendor.c): one GPU, on which kernels really run, because PoCL computes for it."""

import shutil
import subprocess
from pathlib import Path

import pytest

from ext.tinygrad import opencl_loader
from ext.tinygrad.toolchain import find_compiler

NAME = "libnvidia-opencl.so.1"
CARD = "Stub Card"


def build(folder: Path, card: str = CARD) -> Path:
    """Compile the library into folder/lib, with a copy of PoCL beside it; its path. Skips where PoCL or a compiler is missing."""
    bundle, compiler = opencl_loader.bundled(), find_compiler()
    if bundle is None or compiler is None:
        pytest.skip("needs pyopencl[pocl] and a clang")
    pocl = folder / "pyopencl" / ".libs" / "libpocl-stub.so"  # PoCL looks for its files relative to its own place
    pocl.parent.mkdir(parents=True)
    shutil.copyfile(bundle[1], pocl)
    files = bundle[1].parents[2] / "pocl_binary_distribution"
    (folder / "pocl_binary_distribution").symlink_to(files)
    library = folder / "lib" / NAME
    library.parent.mkdir()
    source = Path(__file__).with_name("stub_vendor.c")
    macros = [f'-DCARD="{card}"', f'-DPOCL="{pocl}"']
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", *macros, source, "-o", library], check=True)
    return library
