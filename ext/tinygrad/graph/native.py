"""C files beside this one (replay.c, the drivers' queues) compiled by tinygrad's clang, loaded by tinygrad's loader: no header, no linker
and, the second time, no compiler is needed."""

import ctypes
import functools
import sys
from enum import IntEnum
from pathlib import Path

from tinygrad.device import Device, TinyELF
from tinygrad.runtime.ops_cpu import CPUProgram
from tinygrad.runtime.support.compiler_cpu import ClangCompiler

SOURCE = Path(__file__).with_name("replay.c")
FINISHED = 0x3FFFF << 24  # Pool.word when no run is on
MOST_STEPS = 0x3FFFF  # of a graph; see Pool.word
MOST_CLAIMS = 0xFFF  # of a step
WIDTHS = (6, 8, 12, 16, 32, 64)  # how many arguments call() passes

# the oldest CPU of the kind: this code is no bottleneck, and a cache that moves to another machine stays valid
BASELINES = {"x86_64": ["x86_64", "x86-64"], "arm64": ["arm64", "generic"]}
FUTEX_NUMBERS = {"x86_64": 202, "arm64": 98}

u64 = ctypes.c_uint64


class Unsupported(Exception):
    """Why the native replay cannot work here."""


class Op(IntEnum):
    """First argument of the entry."""

    REPLAY = 0
    HELP = 1
    STOP = 2
    IN_USE = 3
    SIZE = 4


class ArgumentSlot(ctypes.Structure):
    _fields_ = [("futex", u64), ("stolen_ns", u64), ("reading", u64), ("tasks", u64), ("parks", u64), ("yields", u64), ("_pad", u64 * 10)]


class PoolState(ctypes.Structure):
    """`Pool` of replay.c; groups that different threads write lie on cache lines of their own."""

    _fields_ = [
        ("word", u64), ("_pad0", u64 * 15),
        ("parked", u64), ("_pad1", u64 * 15),
        ("graph", u64), ("active", u64), ("stop", u64), ("float_mode", u64), ("syscall", u64), ("clock", u64),
        ("monotonic_clock", u64), ("cpu_clock", u64), ("futex_number", u64), ("spin_ns", u64), ("adaptive", u64), ("yield_", u64),
        ("offered", u64), ("_pad2", u64 * 3),
        ("busy", u64), ("helpers", u64), ("wall_ns", u64), ("stolen_ns", u64), ("backoff_ns", u64), ("resume_at", u64), ("calm_ns", u64),
        ("mark", u64), ("runs", u64), ("solo_runs", u64), ("drops", u64), ("returns", u64), ("_pad3", u64 * 4),
        ("slots", ArgumentSlot * 64),
    ]  # fmt: skip


class NativeGraphStruct(ctypes.Structure):
    """`Graph` of replay.c."""

    _fields_ = [(name, u64) for name in (
        "kernels", "steps", "patches", "n_kernels", "n_steps", "n_patches", "parallel", "times", "last_ns",
    )]  # fmt: skip


Entry = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)


@functools.cache
def entry():  # type: ignore[no-untyped-def]  # an instance of Entry
    """The loaded blob's entry. Calling it releases the GIL. Raises Unsupported."""
    call = Entry(load(SOURCE))
    if call(Op.SIZE, None, None, None) != ctypes.sizeof(PoolState):
        raise Unsupported("replay.c and native.py disagree about the layout of Pool")
    return call


def load(source: Path) -> int:
    """Where the first function of a C file is in memory, for as long as the process lives. Raises Unsupported."""
    device = Device["CPU"]
    architecture = (device.arch or "").split(",")[0]
    if sys.platform == "win32" or architecture not in BASELINES:
        raise Unsupported(f"the native replay is not written for {sys.platform} on {architecture or 'this processor'}")
    compiler = ClangCompiler(BASELINES[architecture], cachekey=f"townhall_{source.stem}")
    try:
        binary = compiler.compile_cached(source.read_text())
        program = CPUProgram(device, TinyELF(binary, f"townhall_{source.stem}", device.renderer.target, ()))
    except Exception as error:  # no clang, one that refuses, a full disk: the caller treats all alike
        raise Unsupported(f"{source.name} could not be compiled ({type(error).__name__}: {error})") from error
    keep_for_ever(program.mem)
    return int(program.addr)


def function_address(name: str) -> int:
    """Where libc's function is."""
    address = ctypes.cast(getattr(ctypes.CDLL(None), name), ctypes.c_void_p).value
    assert address
    return address


def can_help() -> bool:
    """Whether helper threads can be put to sleep and woken: they use Linux's futex. Elsewhere one thread replays."""
    return sys.platform == "linux"


def futex_number() -> int:
    return FUTEX_NUMBERS[(Device["CPU"].arch or "").split(",")[0]]


def keep_for_ever(memory: object) -> None:
    """Helper threads may still run in this memory when the interpreter takes itself apart; it must not be unmapped under them."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(memory))
