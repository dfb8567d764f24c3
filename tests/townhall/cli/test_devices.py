"""`townhall devices` shows what list_devices found and decides nothing."""

import json

import pytest
from click.testing import CliRunner

from ext.tinygrad import device_selection, numa, toolchain
from ext.tinygrad.backend import Backend
from ext.tinygrad.kernels.cpu import cpu_source, weight_reading
from ext.tinygrad.toolchain import Request
from townhall.cli.devices import devices

FOUND = [
    ("CUDA", "no NVIDIA driver is loaded"),
    ("CL", Backend("CL", "PoCL 3.0", "pthread-X", "cpu", "")),
    ("CPU", Backend("CPU", "tinygrad CPU, clang 23", "X", "cpu", "")),
]


@pytest.fixture(autouse=True)
def found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_selection, "list_devices", lambda: FOUND)
    monkeypatch.setattr(toolchain, "prepare_environment", lambda: Request("automatic", ("CL", "CPU")))
    monkeypatch.setattr(numa, "placement", lambda: numa.Placement((0, 1), interleaved=True))
    monkeypatch.setenv("THREADS", "1")
    monkeypatch.setattr(cpu_source, "missing_instructions", lambda: None)
    monkeypatch.setattr(cpu_source, "instruction_set", lambda: "AVX2")
    monkeypatch.setattr(weight_reading, "known_readings", lambda: {"q4_1": "far", "q8_0": "default", "f16": "far"})


def test_lines_mark_the_chosen_device_and_give_reasons():
    done = CliRunner().invoke(devices)
    assert done.exit_code == 0
    assert done.output.splitlines()[:5] == [
        "- CUDA: not usable, no NVIDIA driver is loaded",
        "+ CL: pthread-X, PoCL 3.0: an OpenCL driver on the CPU",
        "* CPU: X, tinygrad CPU, clang 23",
        "    memory of nodes 0, 1: weights interleaved over them, KV caches by first touch",
        "    kernels for AVX2, 1 thread; Q8_0 weights prefetched, Q4_1 and F16 weights prefetched far ahead, as measured",
    ]


def test_a_processor_that_the_kernels_cannot_run_on_has_none(monkeypatch):
    monkeypatch.setattr(cpu_source, "missing_instructions", lambda: "this CPU has no AVX2")
    assert "kernels" not in CliRunner().invoke(devices).output
    assert json.loads(CliRunner().invoke(devices, ["--json"]).output)["devices"][2]["kernels"] is None


def test_json_has_the_same():
    info = json.loads(CliRunner().invoke(devices, ["--json"]).output)
    assert info["requested"] == "automatic" and info["chosen"] == "CPU"
    assert info["devices"][0] == {"device": "CUDA", "usable": False, "reason": "no NVIDIA driver is loaded"}
    usable = [(entry["device"], entry["usable"], entry["kind"], entry["chosen"]) for entry in info["devices"][1:]]
    assert "numa" not in info["devices"][1] and info["devices"][2]["numa"]["weights"] == "interleaved"
    readings = {"q4_1": "far", "q8_0": "default", "f16": "far"}
    assert info["devices"][2]["kernels"] == {"instructions": "AVX2", "threads": 1, "readings": readings}
    assert usable == [("CL", True, "cpu", False), ("CPU", True, "cpu", True)]


def test_memory_and_extensions_are_told_where_the_driver_tells_them(monkeypatch):
    card = Backend("CL", "Vendor 1.2", "card", "gpu", "", memory=8_000_000_000, extensions=("cl_khr_fp16", "cl_khr_icd"))
    monkeypatch.setattr(device_selection, "list_devices", lambda: [("CL", card)])
    assert CliRunner().invoke(devices).output.splitlines()[:3] == [
        "* CL: card (GPU), Vendor 1.2",
        "    gpu, 8.0 GB of memory",
        "    extensions: cl_khr_fp16 cl_khr_icd",
    ]
    entry = json.loads(CliRunner().invoke(devices, ["--json"]).output)["devices"][0]
    assert (entry["memory"], entry["extensions"]) == (8_000_000_000, ["cl_khr_fp16", "cl_khr_icd"])


def test_a_switch_that_nothing_fits_says_so(monkeypatch):
    monkeypatch.setattr(toolchain, "prepare_environment", lambda: Request("DEV=CUDA", ("CUDA",)))
    assert "none of them is what DEV=CUDA asks for" in CliRunner().invoke(devices).output
