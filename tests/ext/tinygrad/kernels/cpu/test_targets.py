"""Other CPUs than this one: the AVX2 kernels where this machine would use AVX-512, and targets that cannot run them at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[4]


def on_target(target: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Python in a process whose CPU device compiles for `target`."""
    environment = os.environ | {"DEV": f"CPU:CLANG:{target}"}
    return subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True)


def has(flag: str) -> bool:
    try:
        return f" {flag} " in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not has("avx512_vnni"), reason="this CPU runs the AVX2 kernels anyway, or none")
def test_the_avx2_kernels_pass_the_same_tests() -> None:
    files = [str(HERE / f"test_{name}.py") for name in ("matmul", "attend", "memory")]
    result = on_target("x86_64,haswell", "-m", "pytest", "-q", *files)
    assert result.returncode == 0, result.stdout[-3000:]


def test_a_cpu_without_avx2_is_told_so() -> None:
    code = "from ext.tinygrad.kernels.cpu.kernels import CPUKernels; print(CPUKernels.available())"
    assert on_target("x86_64,x86-64-v2", "-c", code).stdout.strip() == "this CPU has no AVX2, FMA, F16C"


def test_a_compiler_that_cannot_be_asked_is_named() -> None:
    from ext.tinygrad.kernels.cpu import features

    with pytest.raises(OSError):
        features._macros(("/no/such/clang",))
