"""Drivers are found where no .icd file names them, and nothing that is registered is hidden by it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ext.tinygrad import opencl_loader, shared_libraries, toolchain
from tests.ext.tinygrad import stub_vendor

ROOT = Path(__file__).resolve().parents[3]
SETTLED = ("CPU", "GPU", "DEV", "CC", "OPENCL_PATH", "PYOPENCL_HOME", "LD_LIBRARY_PATH", *opencl_loader.DRIVER_VARIABLES)
ELF = Path("/proc/self/exe")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not ELF.exists(), reason="drivers are registered by .icd files on Linux")]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without OpenCL of its own: registered drivers go into vendors/, a vendor's package into opt/, the bundle is a pretence."""
    for name in SETTLED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("vendors", "opt", "lib"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(opencl_loader, "REGISTERED", tmp_path / "vendors")
    monkeypatch.setattr(opencl_loader, "VENDOR_LIBRARIES", dict.fromkeys(opencl_loader.VENDOR_LIBRARIES, (str(tmp_path / "opt"),)))
    monkeypatch.setattr(opencl_loader, "SYSTEM_LOADERS", (tmp_path / "lib/libOpenCL.so.1",))
    monkeypatch.setattr(opencl_loader, "bundled", lambda: (tmp_path / "py/.libs/libOpenCL-1.so.1", tmp_path / "py/.libs/libpocl-1.so"))
    monkeypatch.setattr(shared_libraries, "SYSTEM_FOLDERS", (str(tmp_path / "lib"),))
    monkeypatch.setattr(shared_libraries, "LOADER_CACHE", tmp_path / "ld.so.cache")
    return tmp_path


def library(path: Path) -> str:
    """The first bytes of an ELF file for this processor."""
    path.write_bytes(ELF.read_bytes()[:64])
    return str(path)


def named() -> list[str]:
    """What the folder that OCL_ICD_VENDORS names holds, in the loader's order."""
    folder = Path(os.environ["OCL_ICD_VENDORS"])
    assert all(file.suffix == ".icd" for file in folder.iterdir())
    return [file.read_text().strip() for file in sorted(folder.iterdir())]


def test_a_vendors_library_is_found_wherever_loaders_look(machine, monkeypatch):
    assert opencl_loader.unregistered([]) == []
    amd = library(machine / "opt/libamdocl64.so")
    (machine / "mine").mkdir()
    intel = library(machine / "mine/libigdrcl.so")
    (machine / "far").mkdir()
    nvidia = library(machine / "far/libnvidia-opencl.so.1")
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{machine / 'gone'}:{machine / 'mine'}")
    strings = f"libc.so.6\0/lib/libc.so.6\0libnvidia-opencl.so.1\0/lib32/libnvidia-opencl.so.1\0libnvidia-opencl.so.1\0{nvidia}\0"
    (machine / "ld.so.cache").write_bytes(b"glibc-ld.so.cache1.1" + bytes(28) + strings.encode())
    assert opencl_loader.unregistered([]) == [nvidia, amd, intel]


def test_a_library_for_another_processor_or_a_text_is_none(machine):
    head = bytearray(ELF.read_bytes()[:64])
    head[4] = 3 - head[4]  # 32 bits for 64, or the other way round
    (machine / "lib/libnvidia-opencl.so.1").write_bytes(head)
    (machine / "lib/libigdrcl.so").write_text("INPUT(libigdrcl.so.1)")
    assert opencl_loader.unregistered([]) == []


@pytest.mark.parametrize("line", ["libnvidia-opencl.so.1\n", "{machine}/lib/libnvidia-opencl.so.1", "/far/libnvidia-opencl.so.550"])
def test_a_registered_library_is_not_found_again(machine, line):
    library(machine / "lib/libnvidia-opencl.so.1")
    assert opencl_loader.unregistered([line.format(machine=machine).strip()]) == []


def test_a_found_driver_is_named_beside_the_registered_ones(machine):
    (machine / "lib/libOpenCL.so.1").touch()
    (machine / "vendors/pocl.icd").write_text("libpocl.so.2\n")
    (machine / "vendors/gone.icd").write_text(f"{machine}/gone.so\n")
    nvidia = library(machine / "lib/libnvidia-opencl.so.1")
    opencl_loader.prepare()
    assert named() == ["libpocl.so.2", nvidia]
    assert "OPENCL_PATH" not in os.environ  # the system's loader
    assert opencl_loader.system_drivers() == ["libpocl.so.2", nvidia]


def test_where_nothing_is_registered_the_bundled_pocl_stays_beside_a_found_driver(machine):
    nvidia = library(machine / "lib/libnvidia-opencl.so.1")
    opencl_loader.prepare()
    assert named() == [nvidia, str(machine / "py/.libs/libpocl-1.so")]
    assert os.environ["OPENCL_PATH"] == str(machine / "py/.libs/libOpenCL-1.so.1")
    assert os.environ["PYOPENCL_HOME"] == str(machine / "py")
    before = dict(os.environ)
    opencl_loader.prepare()  # as in a child process
    assert os.environ == before


def test_without_the_bundle_a_found_driver_serves_the_systems_loader(machine, monkeypatch):
    monkeypatch.setattr(opencl_loader, "bundled", lambda: None)
    amd = library(machine / "opt/libamdocl64.so")
    opencl_loader.prepare()
    assert named() == [amd] and "OPENCL_PATH" not in os.environ


@pytest.mark.parametrize("variable", [*opencl_loader.DRIVER_VARIABLES, "OPENCL_PATH"])
def test_what_the_user_has_set_wins(machine, monkeypatch, variable):
    library(machine / "lib/libnvidia-opencl.so.1")
    monkeypatch.setenv(variable, "/mine")
    opencl_loader.prepare()
    assert os.environ[variable] == "/mine"
    assert variable == "OCL_ICD_VENDORS" or "OCL_ICD_VENDORS" not in os.environ


def test_the_folder_is_made_once_and_mended_where_it_was_damaged(machine):
    folder = Path(opencl_loader.vendors_folder(["libone.so", "/opt/libtwo.so"]))
    assert folder.is_relative_to(machine / "cache")
    times = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert opencl_loader.vendors_folder(["libone.so", "/opt/libtwo.so"]) == str(folder)
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == times
    first = min(times)
    first.write_text("cut sh")
    assert Path(opencl_loader.vendors_folder(["libone.so", "/opt/libtwo.so"])) == folder and first.read_text() == "libone.so\n"
    assert opencl_loader.vendors_folder(["libone.so"]) != str(folder)


def test_without_a_cache_the_folder_is_a_temporary_one(machine, monkeypatch):
    (machine / "cache").write_text("a file where the folder should be")
    monkeypatch.setenv("TMPDIR", str(machine / "opt"))
    monkeypatch.setattr("tempfile.tempdir", None)
    folder = Path(opencl_loader.vendors_folder(["libone.so"]))
    assert folder.parent == machine / "opt" and [file.read_text() for file in folder.iterdir()] == ["libone.so\n"]


# the whole way, with a loader, a vendor's driver and kernels that run


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stub_vendor.build(tmp_path_factory.mktemp("vendor"))


START = """
import sys
from pathlib import Path
from ext.tinygrad import opencl_loader
opencl_loader.REGISTERED = Path(sys.argv.pop(1))
from townhall.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def devices(registered: Path, vendor: Path, cache: Path) -> list[str]:
    """The lines of `GPU=1 townhall devices` on a machine that has registered what is in that folder."""
    known = {name: value for name, value in os.environ.items() if name not in SETTLED}
    environment = known | {"GPU": "1", "LD_LIBRARY_PATH": str(vendor.parent), "XDG_CACHE_HOME": str(cache)}
    command = [sys.executable, "-c", START, str(registered), "devices"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout.splitlines()


@pytest.mark.usefixtures("opencl")
@pytest.mark.parametrize("with_pocl", [False, True])
def test_gpu_1_runs_on_an_unregistered_library_and_pocl_stays_listed(vendor, tmp_path, with_pocl):
    if toolchain.likely_accelerators():
        pytest.skip("this machine has accelerators of its own")
    registered = tmp_path / "vendors"
    registered.mkdir()
    if with_pocl:
        (registered / "pocl.icd").write_text(f"{opencl_loader.bundled()[1]}\n")
    lines = devices(registered, vendor, tmp_path / "cache")
    assert any(line.startswith(f"* CL: {stub_vendor.CARD} (GPU), Stub OpenCL") for line in lines)
    assert any(re.match(r"\+ CL:1: .*Portable Computing Language.*: an OpenCL driver on the CPU", line) for line in lines)
