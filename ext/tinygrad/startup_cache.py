"""Answers that every start would ask or compute again, kept in tinygrad's disk cache: a compiler's features, the CPU queue's programs."""

import contextlib
import functools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ext.tinygrad.toolchain import processor_key


def compiler_identity(compiler: str) -> str:
    """Changes when the program is another one, or runs on another processor; asks no process."""
    found = os.path.realpath(shutil.which(compiler) or compiler)
    try:
        stat = os.stat(found)
    except OSError:
        return f"{found} is missing"
    return f"{found} {stat.st_size} {stat.st_mtime_ns} {processor_key()}"


def compiler_says(command: Sequence[str], timeout: float = 20.0) -> str:
    """What a compiler prints; started only once for as long as it stays the same.

    Raises OSError, CalledProcessError or TimeoutExpired."""
    from tinygrad.helpers import diskcache_get, diskcache_put

    key = f"{compiler_identity(command[0])} {' '.join(command[1:])}"
    said: str | None = diskcache_get("townhall_compiler", key)
    if said is None:
        run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=True)
        said = diskcache_put("townhall_compiler", key, run.stdout)
    return said


@contextlib.contextmanager
def queue_programs() -> Iterator[None]:
    """Within it, opening tinygrad's CPU device generates the four programs of its queue once for ever instead of once a start: 0.13 s."""
    from tinygrad.runtime import ops_cpu

    generate = ops_cpu.do_to_program
    ops_cpu.do_to_program = functools.partial(_program, generate)
    try:
        yield
    finally:
        ops_cpu.do_to_program = generate


@dataclass(frozen=True)
class _Program:
    """As much of a compiled kernel as the device asks for."""

    elf: Any  # tinygrad.device.TinyELF

    def to_elf(self) -> Any:
        return self.elf


def _program(generate: Callable[[Any, Any], Any], ast: Any, renderer: Any) -> _Program:
    from tinygrad.codegen import to_program_key
    from tinygrad.helpers import diskcache_get, diskcache_put

    # to_program_key is what tinygrad itself says that a program depends on, within one process and one compiler
    hash, *rest = to_program_key(ast, renderer)
    key = f"{hash.hex()} {rest} {compiler_identity(os.environ.get('CC', 'clang'))}"
    elf = diskcache_get("townhall_queue", key)
    return _Program(elf if elf is not None else diskcache_put("townhall_queue", key, generate(ast, renderer).to_elf()))
