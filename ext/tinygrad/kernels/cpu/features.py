"""What the C compiler of tinygrad's CPU device can use on this machine, as the compiler itself says."""

import hashlib
import subprocess
from functools import cache

from tinygrad.device import Device
from tinygrad.helpers import getenv

from ext.tinygrad.startup_cache import compiler_says

X86_NEEDS = ("AVX2", "FMA", "F16C")


@cache
def _macros(command: tuple[str, ...]) -> frozenset[str]:
    """Lines `#define …` that the compiler predefines for its target."""
    listing = compiler_says(command)
    return frozenset(line for line in listing.splitlines() if line.startswith("#define "))


def _compiler_macros() -> frozenset[str]:
    compiler = Device["CPU"].renderer.compiler
    target = f"--target={compiler.arch}-none-unknown-elf"
    return _macros((str(getenv("CC", "clang")), target, *compiler.args, "-dM", "-E", "-x", "c", "-"))


def missing() -> str | None:
    """Why the kernels cannot run here, or None."""
    from tinygrad.runtime.support.compiler_cpu import ClangCompiler

    compiler = Device["CPU"].renderer.compiler
    if not isinstance(compiler, ClangCompiler):
        return f"tinygrad's CPU device compiles with {type(compiler).__name__}, the C kernels need clang"
    try:
        macros = _compiler_macros()
    except (OSError, subprocess.SubprocessError) as error:
        return f"the C compiler cannot be asked for its target: {error}"
    if compiler.arch == "x86_64" and (lacks := [n for n in X86_NEEDS if f"#define __{n}__ 1" not in macros]):
        return f"this CPU has no {', '.join(lacks)}"
    return None


@cache
def tag() -> str:
    """A word that differs between CPUs and compilers whose object code may: part of every source, and so of tinygrad's compile cache."""
    return hashlib.sha256("\n".join(sorted(_compiler_macros())).encode()).hexdigest()[:16]
