"""Other CPUs than this one: the AVX2 kernels where this machine would use AVX-512, and targets that cannot run them at all."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[4]


def on_target(target: str, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Python in a process whose CPU device compiles for `target`."""
    environment = os.environ | {"DEV": f"CPU:CLANG:{target}"} | variables
    return subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True)


def has(flag: str) -> bool:
    try:
        return f" {flag} " in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


# whole files of tests in one: a machine with five other busy processes takes ten times as long
pytestmark = pytest.mark.timeout(3000)

FILES = [str(HERE / f"test_{name}.py") for name in ("matmul", "attend", "memory", "row_positions", "quantised_cache")]
SAME_TESTS = ["-m", "pytest", "-q", "-m", "not exhaustive"]  # a test that runs others runs as much of them as `make test` does
PARTS = {"products": [*SAME_TESTS, *FILES[:1]], "the rest": [*SAME_TESTS, *FILES[1:]]}  # for two processes that share the suite


@pytest.mark.slow
@pytest.mark.skipif(not has("avx512_vnni"), reason="this CPU runs the AVX2 kernels anyway, or none")
@pytest.mark.parametrize("part", PARTS)
def test_the_kernels_of_other_cpus_pass_the_same_tests(part: str) -> None:
    result = on_target("x86_64,haswell", *PARTS[part])
    assert result.returncode == 0, result.stdout[-3000:]


@pytest.mark.slow
@pytest.mark.skipif(not has("avx_vnni"), reason="no AVX-VNNI")
@pytest.mark.parametrize("part", ["products", pytest.param("the rest", marks=pytest.mark.exhaustive)])
def test_the_kernels_of_avx_vnni_pass_the_same_tests(part: str) -> None:
    """It is AVX2 but for the dot product of bytes, which every product has."""
    result = on_target("x86_64,alderlake", *PARTS[part])
    assert result.returncode == 0, result.stdout[-3000:]


# of training's kernels, each once, and the product with as many formats as there are ways to unpack them; heads of 20 run on code that
# tinygrad generates
TRAINING = ["-m", "pytest", "-q", str(HERE.parent / "test_training_kernels.py")]
FORMATS = "F32 or Q4_1 or Q2_K or Q3_K or Q6_K or IQ4_NL or Q8_0"
TRAINING += ["-k", f"cpu and not linear_backward_multiplies and not cpu-20 or cpu and 544 and ({FORMATS})"]


@pytest.mark.slow
@pytest.mark.skipif(not has("avx512_vnni"), reason="this CPU runs the AVX2 kernels anyway, or none")
def test_trainings_kernels_of_other_cpus_pass_the_same_tests() -> None:
    result = on_target("x86_64,haswell", *TRAINING)
    assert result.returncode == 0, result.stdout[-3000:]


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the targets are x86")
# the C of both is the same but for the vectors' width and the instructions that simd.h wraps
@pytest.mark.parametrize("target", ["native", pytest.param("haswell", marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("part", [*PARTS, "training"])
def test_no_kernel_does_what_c_leaves_undefined(target: str, part: str, tmp_path: Path) -> None:
    """The same tests with clang's sanitizers, array bounds among them; what they object to becomes an illegal instruction."""
    compiler = tmp_path / "clang-sanitizing"
    # "function" would put a word before the entry, which tinygrad takes to be where the code begins
    checks = "-fsanitize=undefined,local-bounds -fno-sanitize=function -fsanitize-trap=all"
    compiler.write_text(f'#!/bin/sh\nexec "{os.environ["CC"]}" "$@" {checks}\n')
    compiler.chmod(0o755)
    # code that tinygrad generates is not held to it
    only_ours = ["-k", "not twin and not turned_and_stored and not attends_as_it_does_alone and not plain_set"]
    # in a cache of their own: tinygrad's key is the target, so that what was compiled without them would be run
    tests = TRAINING if part == "training" else [*PARTS[part], *only_ours]
    result = on_target(f"x86_64,{target}", *tests, CC=str(compiler), CACHEDB=str(tmp_path / "kernels.db"))
    assert result.returncode == 0, result.stdout[-3000:]


@pytest.mark.slow
def test_the_address_sanitizer_can_watch_the_kernels() -> None:
    """bench.sanitizers proves with a planted error that it finds one, and then runs a few of these tests; by itself it runs all."""
    command = [sys.executable, "-m", "bench.sanitizers", "-k", "test_linear_residual and (Q4_1 or Q6_K)"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if "this needs clang" in result.stderr or "without its AddressSanitizer" in result.stderr:
        pytest.skip(result.stderr.strip())
    assert result.returncode == 0 and "4 passed" in result.stdout, result.stdout[-3000:] + result.stderr[-3000:]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the target is x86")
def test_a_cpu_without_avx2_is_told_so() -> None:
    code = "from ext.tinygrad.kernels.cpu.cpu_kernels import CPUKernels; print(CPUKernels.available())"
    assert on_target("x86_64,x86-64-v2", "-c", code).stdout.strip() == "this CPU has no AVX2, FMA, F16C"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the targets are x86")
@pytest.mark.parametrize(
    "target, name",
    [("haswell", "AVX2"), ("alderlake", "AVX-VNNI"), ("cascadelake", "AVX-512 VNNI"), ("skylake-avx512", "AVX2"), ("x86-64-v2", "plain C")],
)
def test_the_instructions_in_use_are_named_as_the_compiler_takes_them(target: str, name: str) -> None:
    code = "from ext.tinygrad.kernels.cpu.cpu_source import instruction_set, streams; print(instruction_set(), streams(), sep=', ')"
    assert on_target(f"x86_64,{target}", "-c", code).stdout.strip() == f"{name}, {2 if name == 'AVX2' else 1}"


def test_a_compiler_that_cannot_be_asked_is_named() -> None:
    from ext.tinygrad.kernels.cpu import cpu_source

    with pytest.raises(OSError):
        cpu_source._macros(("/no/such/clang",))
