"""The CPU kernels compiled for another processor and run by qemu's user-mode emulation, one static program per launch.

As a pytest plugin (`-p tests.reference.emulated` with EMULATED=aarch64,cortex-a76, say) it makes CPUKernels launch everything that way, so
that the tests of this machine's kernels are those of the other's. It needs a clang that knows the target and qemu-user; `missing` says
which of them is not here. A program is one ELF file: the kernel and a loop over its tasks in one segment, header and buffers in another.
"""

import functools
import os
import platform
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tinygrad import Tensor, UOp
from tinygrad.runtime.support.elf import elf_loader, jit_loader

from ext.tinygrad.kernels.cpu.cpu_kernels import CPUKernels

PAGE, CODE, DATA = 4096, 0x400000, 0x40000000
MACHINE = {"aarch64": 183, "x86_64": 62}  # e_machine
GUARD = 256  # bytes of a pattern after each buffer: a kernel that writes there is caught
FLAGS = ["-O2", "-fPIC", "-ffreestanding", "-fno-math-errno", "-nostdlib", "-fno-ident", "-x", "c", "-c"]  # as tinygrad's ClangCompiler

HARNESS = """
void* memset(void* to, int value, unsigned long n) {
  for (unsigned long i = 0; i < n; i++) ((volatile char*)to)[i] = (char)value;
  return to;
}
void* memcpy(void* to, const void* from, unsigned long n) {
  for (unsigned long i = 0; i < n; i++) ((volatile char*)to)[i] = ((const char*)from)[i];
  return to;
}
static long system_call(long number, long a, long b, long c) {
#ifdef __aarch64__
  register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
  return x0;
#define WRITE 64
#define EXIT 93
#else
  long result;
  __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
  return result;
#define WRITE 1
#define EXIT 60
#endif
}
__attribute__((used)) static void run(void) {
  for (long core_id = 0; core_id < TASK_COUNT; core_id++) %(entry)s(%(arguments)s core_id);
  for (long at = 0, n; at < %(bytes)d; at += n)
    if ((n = system_call(WRITE, 1, %(data)d + at, %(bytes)d - at)) <= 0) system_call(EXIT, 1, 0, 0);
  system_call(EXIT, 0, 0, 0);
}
#ifdef __aarch64__
__attribute__((naked)) void program_start(void) { __asm__("bl run"); }
#else
__attribute__((naked)) void program_start(void) { __asm__("xor %%ebp, %%ebp\\n and $-16, %%rsp\\n call run"); }
#endif
"""


@functools.cache
def compiler(architecture: str) -> str | None:
    """A clang that makes code for an architecture, better one that does for all, so that they are compared; None where there is none (the
    wheel's knows its own alone)."""
    numbered = sorted((p for f in os.get_exec_path() for p in Path(f).glob("clang-[0-9][0-9]")), reverse=True)
    found = [c for c in (os.environ.get("CC"), shutil.which("clang"), *map(str, numbered)) if c and _makes(c, architecture)]
    return next((one for one in found if all(_makes(one, other) for other in MACHINE)), found[0] if found else None)


@functools.cache
def _makes(candidate: str, architecture: str) -> bool:
    command = [candidate, f"--target={architecture}-none-unknown-elf", *FLAGS, "-", "-o", os.devnull]
    return not subprocess.run(command, input=b"", capture_output=True).returncode


@functools.cache
def emulator(architecture: str) -> str | None:
    return shutil.which(f"qemu-{architecture}") or shutil.which(f"qemu-{architecture}-static")


def missing(architecture: str) -> str | None:
    """What is not here that emulation needs; None where all is."""
    if compiler(architecture) is None:
        return f"no clang here makes code for {architecture}"
    return None if emulator(architecture) else f"no qemu-{architecture} here (Debian: qemu-user)"


def _object(source: str, target: str) -> bytes:
    """An ELF object for a target as tinygrad names it: architecture, processor, features."""
    architecture, processor, *features = target.split(",")
    if architecture == "x86_64":
        flags = [f"-march={processor}", *(f"-mno{f}" if f.startswith("-") else f"-m{f}" for f in features)]
    else:
        flags = ["-ffixed-x18", "-mcpu=" + "+".join([processor, *(f"no{f[1:]}" if f.startswith("-") else f for f in features)])]
    command = [compiler(architecture) or "clang", f"--target={architecture}-none-unknown-elf", *FLAGS, *flags, "-", "-o", "-"]
    done = subprocess.run(command, input=source.encode(), capture_output=True)
    assert not done.returncode, done.stderr.decode()[-2000:]
    return done.stdout


def program(source: str, entry: str, tasks: int, buffers: Sequence[np.ndarray], start_pos: int | None, target: str) -> bytes:
    """An executable that calls `entry` once for each task over `buffers` (flat bytes) and writes all of them to standard output."""
    offsets, data = [], bytearray()
    for buffer in buffers:
        offsets.append(len(data))
        data += buffer.tobytes() + bytes(range(GUARD))
        data += bytes(-len(data) % 64)
    arguments = "".join(f"(void*){DATA + at}, " for at in offsets) + ("" if start_pos is None else f"{start_pos}, ")
    harness = HARNESS % {"entry": entry, "arguments": arguments, "bytes": len(data), "data": DATA}
    image = _object(f"{source}\n#define TASK_COUNT {tasks}\n{harness}", target)
    start = _symbol(image, "program_start")
    code, architecture = jit_loader(image), target.split(",")[0]
    at = -(-(PAGE + len(code)) // PAGE) * PAGE
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 2, MACHINE[architecture], 1, CODE + start, 64, 0, 0, 64, 56, 2, 64, 0, 0)
    segments = [(5, PAGE, CODE, len(code)), (6, at, DATA, len(data))]  # flags, place in the file, address, bytes
    for flags, place, address, size in segments:
        header += struct.pack("<IIQQQQQQ", 1, flags, place, address, address, size, size, PAGE)
    return (header.ljust(PAGE, b"\0") + code).ljust(at, b"\0") + bytes(data)


def _symbol(blob: bytes, name: str) -> int:
    """Where a symbol lies in the image that jit_loader makes."""
    _, sections, _ = elf_loader(blob)
    table = next(s for s in sections if s.header.sh_type == 2)
    names = sections[table.header.sh_link].content
    for at in range(0, len(table.content), 24):
        named, _, _, section, value, _ = struct.unpack_from("<IBBHQQ", table.content, at)
        if names[named : names.index(b"\0", named)].decode() == name:
            return int(sections[section].header.sh_addr + value)
    raise AssertionError(f"no symbol {name}")


def run(built: bytes, target: str, *options: str) -> bytes:
    """What a program writes; natively where the target is this machine's own architecture and no option asks for the emulator."""
    architecture, processor = target.split(",")[:2]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel"
        path.write_bytes(built)
        path.chmod(0o700)
        native = architecture == platform.machine() and not options
        command = [] if native else [emulator(architecture) or "qemu", "-cpu", "max", *options]
        done = subprocess.run([*command, str(path)], capture_output=True)
    assert not done.returncode, f"{target}: {done.returncode} {done.stderr.decode(errors='replace')[-2000:]}"
    return done.stdout


def launch(
    source: str,
    entry: str,
    tasks: int,
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor] = (),
    start_pos: int | UOp | None = None,
    target: str = os.environ.get("EMULATED", ""),
) -> list[Tensor]:
    """As cpu_source.launch, at once and on `target`, by default the one that EMULATED names."""
    if isinstance(start_pos, UOp):
        start_pos = int(start_pos.unbind()[1])
    operands = [t.realize() for t in (*outputs, *inputs)]
    views = [np.frombuffer(t.uop.base.buffer.ensure_allocated().as_memoryview(allow_zero_copy=True), np.uint8) for t in operands]
    written = np.frombuffer(run(program(source, entry, tasks, views, start_pos, target), target), np.uint8)
    at = 0
    for i, view in enumerate(views):
        new, guard = written[at : at + view.nbytes], written[at + view.nbytes : at + view.nbytes + GUARD]
        assert np.array_equal(guard, np.arange(GUARD, dtype=np.uint8)), f"{entry} writes beyond operand {i}"
        if i < len(outputs):
            view[:] = new
        else:
            assert np.array_equal(new, view), f"{entry} writes to its input {i - len(outputs)}"
        at += -(-(view.nbytes + GUARD) // 64) * 64
    return list(outputs)


if os.environ.get("EMULATED"):
    CPUKernels._launch = staticmethod(launch)
