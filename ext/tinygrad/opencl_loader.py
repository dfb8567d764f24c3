"""Which libOpenCL tinygrad loads, and which drivers that loader finds: all set through the environment, nothing is opened here.

pyopencl's Linux wheels carry a loader (a patched ocl-icd) and PoCL, an OpenCL driver that runs on the CPU. The patched loader crashes
without PYOPENCL_HOME, and finds PoCL without an import of pyopencl when OCL_ICD_VENDORS is the driver's path. Where a system has a driver
registered, that one counts; a vendor's library that is not registered counts as well (opencl_drivers.py).
"""

import importlib.util
import os
from pathlib import Path

from ext.tinygrad import opencl_drivers
from ext.tinygrad.shared_libraries import SYSTEM_FOLDERS

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
    registered = opencl_drivers.registered()
    found = [] if chosen else opencl_drivers.unregistered(registered)
    # the system's loader knows the system's drivers best
    system = not given and (chosen or bool(registered)) and any(path.exists() for path in SYSTEM_LOADERS)
    if bundle and not system:
        loader, pocl = bundle
        os.environ["OPENCL_PATH"], os.environ["PYOPENCL_HOME"] = str(loader), str(loader.parent.parent)
        if not chosen and not registered and not found:
            os.environ["OCL_ICD_VENDORS"] = str(pocl)
    if found:
        # PoCL serves where nothing is registered, and stays there for a card whose driver finds no device
        others = [] if registered or bundle is None else [str(bundle[1])]
        os.environ["OCL_ICD_VENDORS"] = opencl_drivers.vendors_folder([*registered, *found, *others])


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
    registered = opencl_drivers.registered()
    return [*registered, *opencl_drivers.unregistered(registered)]
