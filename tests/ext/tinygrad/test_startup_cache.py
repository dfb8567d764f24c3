"""What is remembered across starts is what would be asked or generated again."""

import os
from pathlib import Path

import pytest

from ext.tinygrad import kernel_cache


@pytest.fixture
def compiler(tmp_path: Path) -> Path:
    """A program that counts how often it is started, and says how often."""
    script = tmp_path / "clang"
    script.write_text(f"#!/bin/sh\necho x >> {tmp_path}/count\nwc -l < {tmp_path}/count\n")
    script.chmod(0o755)
    return script


def test_a_compiler_is_asked_once_until_it_is_another(compiler: Path) -> None:
    first = kernel_cache.compiler_says([str(compiler), "--version"])
    assert kernel_cache.compiler_says([str(compiler), "--version"]) == first
    assert kernel_cache.compiler_says([str(compiler), "--other"]) != first
    os.utime(compiler, ns=(1, 1))
    assert kernel_cache.compiler_says([str(compiler), "--version"]) != first


def test_a_compiler_that_fails_is_not_remembered(compiler: Path) -> None:
    working = compiler.read_text()
    compiler.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(Exception, match="exit status 1"):
        kernel_cache.compiler_says([str(compiler)])
    compiler.write_text(working)
    assert kernel_cache.compiler_says([str(compiler)])


def test_the_queue_programs_are_those_that_tinygrad_generates() -> None:
    from tinygrad import Device
    from tinygrad.runtime import ops_cpu
    from tinygrad.runtime.ops_cpu import CPUDevice

    generate = ops_cpu.do_to_program
    generated = CPUDevice("CPU").prgs
    with kernel_cache.queue_programs():
        CPUDevice("CPU")  # fills the cache, where it was empty
        kept = CPUDevice("CPU").prgs
    assert ops_cpu.do_to_program is generate
    assert Device["CPU"].prgs.keys() == kept.keys()
    for function, program in kept.items():
        assert program.mem[:] == generated[function].mem[:] and program.signature == generated[function].signature
