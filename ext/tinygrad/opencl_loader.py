"""Which libOpenCL tinygrad loads, and which drivers that loader finds: all told through the environment, nothing is opened here.

pyopencl's Linux wheels carry a loader (a patched ocl-icd) and PoCL, an OpenCL driver that runs on the CPU. The patched loader crashes
without PYOPENCL_HOME, and finds PoCL without an import of pyopencl when OCL_ICD_VENDORS is the driver's path. Where a system has a driver
registered, that one counts.
"""

import importlib.util
import os
import sysconfig
from pathlib import Path

SYSTEM_DRIVERS = Path("/etc/OpenCL/vendors")
_MULTIARCH = sysconfig.get_config_var("MULTIARCH")
# where tinygrad looks for a library of the system
FOLDERS = ("/usr/lib64", "/usr/lib", "/usr/local/lib", "/usr/lib/wsl/lib", "/lib", "/lib64", f"/lib/{_MULTIARCH}")
SYSTEM_LOADERS = tuple(Path(folder) / "libOpenCL.so.1" for folder in FOLDERS)
# variables by which loaders are told where drivers are; whoever sets one knows what they want
DRIVER_VARIABLES = ("OCL_ICD_VENDORS", "OCL_ICD_FILENAMES", "OPENCL_VENDOR_PATH")


def prepare() -> None:
    """Point tinygrad at an OpenCL loader and the loader at a driver, in os.environ; leaves alone what a user has set."""
    bundle = bundled()
    if bundle is None:
        return
    loader, driver = bundle
    home = str(loader.parent.parent)
    given = os.environ.get("OPENCL_PATH")
    if given and Path(given) != loader:
        return
    drivers_known = any(os.environ.get(name) for name in DRIVER_VARIABLES) or bool(registered_drivers())
    if not given and drivers_known and any(path.exists() for path in SYSTEM_LOADERS):
        return  # the system's loader knows the system's drivers best
    os.environ["OPENCL_PATH"], os.environ["PYOPENCL_HOME"] = str(loader), home
    if not drivers_known:
        os.environ["OCL_ICD_VENDORS"] = str(driver)


def bundled() -> tuple[Path, Path] | None:
    """The loader and the PoCL driver inside an installed pyopencl, without importing it."""
    spec = importlib.util.find_spec("pyopencl")
    if spec is None or spec.origin is None:
        return None
    libs = Path(spec.origin).parent / ".libs"
    loaders, drivers = sorted(libs.glob("libOpenCL*.so*")), sorted(libs.glob("libpocl*.so*"))
    return (loaders[0], drivers[0]) if loaders and drivers else None


def registered_drivers() -> list[str]:
    """The driver libraries that this system has registered, less those that are gone."""
    drivers = []
    try:
        files = sorted(SYSTEM_DRIVERS.glob("*.icd"))
        for file in files:
            library = file.read_text(errors="replace").strip()
            if library and (not library.startswith("/") or Path(library).exists()):
                drivers.append(library)
    except OSError:
        return []
    return drivers
