"""Which kernels an OpenCL device gets: the CPU's own sources only where a trial of them came out right."""

from dataclasses import replace
from typing import Literal

import pytest
from tinygrad import Device

from ext.tinygrad.kernels import kernels_for
from ext.tinygrad.kernels.gpu import cpu_driver, kernel_choice
from ext.tinygrad.kernels.gpu.cpu_driver import CPUDriverKernels, wrap
from ext.tinygrad.kernels.gpu.gpu_kernels import GPUKernels
from ext.tinygrad.kernels.gpu.tuning import Tuning
from ext.tinygrad.kernels.reference import ReferenceKernels


@pytest.fixture(autouse=True)
def _as_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KERNELS", raising=False)
    if kernel_choice.info_of(Device["CL"]).kind != "cpu":
        pytest.skip("no OpenCL driver on the CPU")


def test_a_driver_on_the_cpu_runs_the_cpu_kernels_own_sources() -> None:
    assert CPUDriverKernels.obstacle("CL") is None
    assert isinstance(kernels_for("CL"), CPUDriverKernels)


def test_kernels_0_leaves_them_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNELS", "0")
    assert isinstance(kernels_for("CL"), ReferenceKernels)


def test_kernels_for_any_device_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNELS", "gpu")
    assert isinstance(kernels_for("CL"), GPUKernels)


def another_compiler(source: str, *rest: object) -> str:
    return wrap(f"#error no such extension\n{source}", *rest)  # type: ignore[arg-type]


def another_machine(source: str, *rest: object) -> str:
    return wrap(source, *rest).replace("get_group_id(0)", "0")  # type: ignore[arg-type]


def test_a_driver_whose_compiler_refuses_them_is_found_out() -> None:
    assert cpu_driver.obstacle("CL", another_compiler) == "its compiler does not take them"


def test_a_driver_that_computes_something_else_is_found_out() -> None:
    assert cpu_driver.obstacle("CL", another_machine) == "it computes other numbers with them than this processor does"


def test_a_driver_that_cannot_take_them_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cpu_driver, "wrap", another_compiler)
    assert isinstance(kernels_for("CL"), ReferenceKernels)
    assert "CL (its compiler does not take them)" in capsys.readouterr().err


def test_a_gpu_gets_the_kernels_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    info = replace(kernel_choice.info_of(Device["CL"]), kind="gpu", most_items=256)
    monkeypatch.setattr(kernel_choice, "info_of", lambda device: info)
    assert isinstance(kernels_for("CL"), GPUKernels)


@pytest.mark.parametrize("kind", ["gpu", "accelerator", "cpu"])
@pytest.mark.parametrize("most_items, local_bytes", [(1024, 48 << 10), (256, 32 << 10), (64, 16 << 10)])
@pytest.mark.parametrize("head_dim", [20, 64, 128, 256])
def test_work_groups_fit_the_device(kind: Literal["gpu", "accelerator", "cpu"], most_items: int, local_bytes: int, head_dim: int) -> None:
    tuning = Tuning(kind, 16, most_items, local_bytes)
    for cols in (32, 37, 576, 4096):
        for slots in (1, 2):
            for floats in (False, True):
                shape = tuning.decode_shape(cols, slots, floats)
                assert shape.slots == slots and shape.splits & (shape.splits - 1) == 0 and shape.loads >= 1
                assert shape.items <= max(most_items, 32 * slots)
                assert shape.splits <= tuning.most_warps(cols, floats)
    assert tuning.attend_items(head_dim) % (head_dim // 4) == 0 and tuning.attend_items(head_dim) <= most_items
    assert 1 <= tuning.attend_splits(200, 3) <= 3 and tuning.attend_splits(8192, 8) == 4
    chunk = tuning.attend_chunk(head_dim)
    assert chunk == 8 or 4 * ((16 + chunk) * (head_dim + 1) + 16 * (chunk + 1)) <= local_bytes
