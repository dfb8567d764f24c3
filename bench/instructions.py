"""Instructions that the CPU's products take for a weight, on processors that are not here: `python -m bench.instructions`.

Each kernel is built for the target and run by qemu's user-mode emulation, which logs every instruction that it executes: those of a run
with all tasks less those of a run with none. qemu knows no AVX-512: such kernels are run one instruction at a time (ptrace), where this
processor has it. No time is measured; instructions of different sets do not cost the same.
"""

import argparse
import ctypes
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from tinygrad import Tensor

STEPPED = "x86_64,cascadelake"  # has instructions that qemu does not emulate
TARGETS = {
    "AVX-512 VNNI": STEPPED,
    "AVX2": "x86_64,haswell",
    "NEON": "aarch64,cortex-a72",
    "NEON dotprod": "aarch64,cortex-a76",
    "NEON i8mm": "aarch64,neoverse-v1",
}
TYPES = ["Q4_0", "Q4_1", "Q4_K", "Q6_K", "Q8_0", "IQ4_NL", "Q2_K", "F16"]
ROWS, COLS = 64, 512


def executed(program: bytes, target: str) -> int:
    """How many instructions a program executes."""
    from tests.reference import emulated

    with tempfile.TemporaryDirectory() as folder:
        path, log = Path(folder) / "kernel", Path(folder) / "log"
        path.write_bytes(program)
        path.chmod(0o700)
        if target == STEPPED:
            return stepped(path)
        emulator = emulated.emulator(target.split(",")[0])
        assert emulator is not None
        options = ["-cpu", "max", "-singlestep", "-d", "exec,nochain", "-D", str(log)]
        subprocess.run([emulator, *options, str(path)], check=True, stdout=subprocess.DEVNULL)
        with log.open("rb") as file:
            return sum(line.startswith(b"Trace") for line in file)


def stepped(path: Path) -> int:
    """How many instructions a program executes here, one at a time; what it writes is thrown away."""
    libc = _libc()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        libc.ptrace(0, 0, None, None)  # PTRACE_TRACEME: exec stops it
        try:
            os.execv(path, [str(path)])
        finally:
            os._exit(1)
    count = 0
    while True:
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            assert os.waitstatus_to_exitcode(status) == 0, f"{path} ended with {os.waitstatus_to_exitcode(status)}"
            return count
        given = os.WSTOPSIG(status)
        if libc.ptrace(9, child, None, None if given == signal.SIGTRAP else given):  # PTRACE_SINGLESTEP
            raise OSError(ctypes.get_errno(), "this system does not let a program be run one instruction at a time")
        count += 1


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes, libc.ptrace.restype = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p], ctypes.c_long
    return libc


def steps_here() -> bool:
    """Has this processor what STEPPED needs?"""
    try:
        return "avx512_vnni" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def per_weight(type: str, T: int, target: str) -> float:
    """Instructions a weight of a decode step (T = 1), or a multiplication of a prefill."""
    from ext.tinygrad.kernels.cpu.cpu_kernels import CPUKernels
    from tests.reference import emulated, oracles

    rng = np.random.default_rng(0)
    counted: list[int] = []

    class Counting(CPUKernels):
        @staticmethod
        def _launch(source, entry, tasks, outputs, inputs=(), start_pos=None):  # type: ignore[no-untyped-def]
            if entry == "linear":
                tensors = [t.realize() for t in (*outputs, *inputs)]
                buffers = [np.frombuffer(t.uop.base.buffer.ensure_allocated().as_memoryview(), np.uint8) for t in tensors]
                programs = [emulated.program(source, entry, n, buffers, start_pos, target) for n in (tasks, 0)]
                counted.append(executed(programs[0], target) - executed(programs[1], target))
            return emulated.launch(source, entry, tasks, outputs, inputs, start_pos, target=target)

    kernels = Counting()
    x, residual = (Tensor(rng.standard_normal((T, n)).astype(np.float32), device="CPU").realize() for n in (COLS, ROWS))
    kernels.linear_residual(x, kernels.pack(oracles.random_matrix(rng, type, ROWS, COLS), "CPU"), residual).realize()
    return counted[0] / (ROWS * COLS * T)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--type", action="append", choices=TYPES, help="weight formats; all of them by default")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    import tests.conftest  # noqa: F401  (tinygrad is opened on the CPU)
    from tests.reference import emulated

    for architecture in ("aarch64", "x86_64"):
        if missing := emulated.missing(architecture):
            print(f"bench.instructions: {missing}", file=sys.stderr)
            sys.exit(2)
    targets = {name: target for name, target in TARGETS.items() if target != STEPPED or steps_here()}
    table = {
        type: {
            f"{phase} {name}": round(per_weight(type, T, target), 3)
            for phase, T in (("decode", 1), ("prefill", 32))
            for name, target in targets.items()
        }
        for type in args.type or TYPES
    }
    if args.json:
        print(json.dumps(table, indent=2))
        return
    columns = list(next(iter(table.values())))
    print("| instructions a weight | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for type, row in table.items():
        print(f"| {type} | " + " | ".join(f"{row[c]:.3f}" for c in columns) + " |")


if __name__ == "__main__":
    main()
