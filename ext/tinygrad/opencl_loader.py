"""The OpenCL loader and the drivers of this machine: which library tinygrad loads, and which drivers that library finds.

Everything is set through the environment; no library is opened here.

A loader finds drivers through /etc/OpenCL/vendors/*.icd, a file with one library's name or path each. Containers often have a GPU's
library on the loader's path and no such file, and writing one needs root. `vendors_folder` makes a folder of the user's own that names
every driver; OCL_ICD_VENDORS makes ocl-icd and the Khronos loader read it instead.

pyopencl's Linux wheels carry a loader (a patched ocl-icd) and PoCL, an OpenCL driver that runs on the CPU. The patched loader crashes
without PYOPENCL_HOME, and finds PoCL without an import of pyopencl when OCL_ICD_VENDORS is the driver's path. Where a system has a
driver registered, that one counts; a vendor's library that is not registered counts as well.
"""

import atexit
import hashlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ext.tinygrad import shared_libraries
from ext.tinygrad.shared_libraries import MULTIARCH, SYSTEM_FOLDERS

REGISTERED = Path("/etc/OpenCL/vendors")
# file name of a vendor's driver, and the folders beyond the loader's path that its packages use
VENDOR_LIBRARIES: dict[str, tuple[str, ...]] = {
    "libnvidia-opencl.so.1": (f"/usr/lib/{MULTIARCH}/nvidia/current", "/usr/local/nvidia/lib64", "/run/opengl-driver/lib"),
    "libamdocl64.so": (
        "/opt/rocm/lib",
        "/opt/rocm/opencl/lib",
        f"/opt/amdgpu/lib/{MULTIARCH}",
        "/opt/amdgpu/lib64",
        f"/opt/amdgpu-pro/lib/{MULTIARCH}",
        "/opt/amdgpu-pro/lib64",
    ),
    "libigdrcl.so": (
        f"/usr/lib/{MULTIARCH}/intel-opencl",
        "/usr/lib64/intel-opencl",
        "/usr/lib/intel-opencl",
        "/usr/local/lib/intel-opencl",
        "/usr/local/lib64/intel-opencl",
    ),
}


def registered() -> list[str]:
    """The driver libraries that this system has registered, less those that are gone."""
    drivers = []
    try:
        for file in sorted(REGISTERED.glob("*.icd")):
            library = file.read_text(errors="replace").strip()
            if library and (not library.startswith("/") or Path(library).exists()):
                drivers.append(library)
    except OSError:
        return []
    return drivers


def unregistered(known: Sequence[str]) -> list[str]:
    """Paths of vendors' driver libraries that are installed and are none of the `known` ones."""
    names = {_stem(library) for library in known}
    found = [shared_libraries.find(name, folders) for name, folders in VENDOR_LIBRARIES.items() if _stem(name) not in names]
    return [str(path) for path in found if path]


def vendors_folder(drivers: Sequence[str]) -> str:
    """A folder with one .icd file per driver, in the user's cache, or a temporary one where that cannot be written. Made once."""
    from ext.tinygrad import cache_files

    files = {f"{number:02}-{_stem(driver)}.icd": f"{driver}\n" for number, driver in enumerate(drivers)}
    key = hashlib.sha256("".join(files.values()).encode()).hexdigest()[:16]
    kept = cache_files.folder("opencl-vendors") / key
    try:
        return _filled(kept, files)
    except OSError:  # a full or read-only disk
        temporary = Path(tempfile.mkdtemp(prefix="townhall-opencl-"))
        atexit.register(shutil.rmtree, temporary, ignore_errors=True)
        return _filled(temporary, files)


def _filled(folder: Path, files: dict[str, str]) -> str:
    from ext.tinygrad import cache_files

    for name, text in files.items():
        path = folder / name
        if not path.exists() or path.read_text() != text:
            with cache_files.written(path) as part:
                part.write_text(text)
    return str(folder)


def _stem(library: str) -> str:
    """ "libnvidia-opencl" of "/usr/lib/libnvidia-opencl.so.1"."""
    return os.path.basename(library).split(".so")[0]


SYSTEM_LOADERS = tuple(Path(folder) / "libOpenCL.so.1" for folder in SYSTEM_FOLDERS)
# variables that tell loaders where drivers are; one that is set already is respected
DRIVER_VARIABLES = ("OCL_ICD_VENDORS", "OCL_ICD_FILENAMES", "OPENCL_VENDOR_PATH")


def prepare() -> None:
    """Point tinygrad at an OpenCL loader and the loader at the drivers, in os.environ; leaves alone what a user has set."""
    bundle = bundled()
    given = os.environ.get("OPENCL_PATH")
    if given and not (bundle and Path(given) == bundle[0]):
        return
    chosen = any(os.environ.get(name) for name in DRIVER_VARIABLES)
    known = registered()
    found = [] if chosen else unregistered(known)
    # the system's loader knows the system's drivers best
    system = not given and (chosen or bool(known)) and any(path.exists() for path in SYSTEM_LOADERS)
    if bundle and not system:
        loader, pocl = bundle
        os.environ["OPENCL_PATH"], os.environ["PYOPENCL_HOME"] = str(loader), str(loader.parent.parent)
        if not chosen and not known and not found:
            os.environ["OCL_ICD_VENDORS"] = str(pocl)
    if found:
        # PoCL serves where nothing is registered, and stays there for a card whose driver finds no device
        others = [] if known or bundle is None else [str(bundle[1])]
        os.environ["OCL_ICD_VENDORS"] = vendors_folder([*known, *found, *others])


def bundled() -> tuple[Path, Path] | None:
    """The loader and the PoCL driver inside an installed pyopencl, without importing it."""
    spec = importlib.util.find_spec("pyopencl")
    if spec is None or spec.origin is None:
        return None
    libs = Path(spec.origin).parent / ".libs"
    loaders, drivers = sorted(libs.glob("libOpenCL*.so*")), sorted(libs.glob("libpocl*.so*"))
    return (loaders[0], drivers[0]) if loaders and drivers else None


def system_drivers() -> list[str]:
    """The driver libraries of this system, PoCL of the package index left out: registered ones, then a vendor's that is not."""
    known = registered()
    return [*known, *unregistered(known)]
