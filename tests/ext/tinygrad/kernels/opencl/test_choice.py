"""Which kernels an OpenCL device gets: the CPU's own sources only where a trial of them came out right."""

import pytest

from ext.tinygrad.kernels import kernels_for
from ext.tinygrad.kernels.opencl import choice, cpu_driver, trial
from ext.tinygrad.kernels.opencl.cpu_driver import CPUDriverKernels, wrap
from ext.tinygrad.kernels.twins import TwinKernels


@pytest.fixture(autouse=True)
def _as_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KERNELS", raising=False)
    if choice.kind_of("CL") != "cpu":
        pytest.skip("no OpenCL driver on the CPU")


def test_a_driver_on_the_cpu_runs_the_cpu_kernels_own_sources() -> None:
    assert CPUDriverKernels.obstacle("CL") is None
    assert isinstance(kernels_for("CL"), CPUDriverKernels)


def test_kernels_0_leaves_them_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNELS", "0")
    assert isinstance(kernels_for("CL"), TwinKernels)


def another_compiler(source: str, *rest: object) -> str:
    return wrap(f"#error no such extension\n{source}", *rest)  # type: ignore[arg-type]


def another_machine(source: str, *rest: object) -> str:
    return wrap(source, *rest).replace("get_group_id(0)", "0")  # type: ignore[arg-type]


def test_a_driver_whose_compiler_refuses_them_is_found_out() -> None:
    assert trial.obstacle("CL", another_compiler) == "its compiler does not take them"


def test_a_driver_that_computes_something_else_is_found_out() -> None:
    assert trial.obstacle("CL", another_machine) == "it computes other numbers with them than this processor does"


def test_a_driver_that_cannot_take_them_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cpu_driver, "wrap", another_compiler)
    assert not isinstance(kernels_for("CL"), CPUDriverKernels)
    assert "CL (its compiler does not take them)" in capsys.readouterr().err
