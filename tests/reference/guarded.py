"""Runs compiled kernels with every buffer against a page that may not be touched, and the tasks in any order: a stray access is a fault."""

import ctypes
import mmap
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from tinygrad import Tensor
from tinygrad.device import Buffer
from tinygrad.engine.realize import compile_linear, get_call_arg_uops, get_runtime

PAGE = mmap.PAGESIZE
LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass
class Guarded:
    """A copy of a buffer between two pages without any rights, touching the second one, or the first."""

    nbytes: int
    at_end: bool
    memory: mmap.mmap = field(init=False)
    address: int = field(init=False)

    def __post_init__(self) -> None:
        pages = -(-self.nbytes // PAGE)
        self.memory = mmap.mmap(-1, (pages + 2) * PAGE)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        for page in (base, base + (pages + 1) * PAGE):
            assert LIBC.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(PAGE), 0) == 0
        self.address = base + PAGE + (pages * PAGE - self.nbytes if self.at_end else 0)

    def view(self) -> np.ndarray:
        return np.ctypeslib.as_array((ctypes.c_uint8 * self.nbytes).from_address(self.address))


@dataclass
class Launch:
    address: int
    buffers: list[Buffer]
    values: list[int]  # of the variables, core_id last
    tasks: int
    name: str


def launches(*outputs: Tensor) -> list[Launch]:
    """What computing these tensors would launch, in order."""
    linear, variables = Tensor.linear_with_vars(*outputs)
    found = []
    for call in compile_linear(linear).src:
        program = call.src[0]
        info = program.arg
        buffers = [u.buffer.ensure_allocated() for u in get_call_arg_uops(call)]
        values = [0 if v.expr == "core_id" else variables[v.expr] for v in info.vars]
        runtime = get_runtime("CPU", program)
        found.append(Launch(runtime.addr, [buffers[i] for i in info.globals], values, info.global_size[0], info.name))
        KEEP.append(runtime)
    return found


KEEP: list[object] = []  # compiled code must outlive its address


def run(plan: Iterable[Launch], *, at_end: bool = True, threads: int = 1, backwards: bool = False) -> dict[int, np.ndarray]:
    """Launch after launch over guarded copies; -> the bytes of each buffer afterwards, by identity."""
    copies: dict[int, Guarded] = {}
    for launch in plan:
        for buffer in launch.buffers:
            if id(buffer) not in copies:
                copies[id(buffer)] = Guarded(buffer.nbytes, at_end)
                copies[id(buffer)].view()[:] = np.frombuffer(buffer.as_memoryview(), np.uint8)
        fixed = [copies[id(b)].address for b in launch.buffers] + launch.values[:-1]
        function = ctypes.CFUNCTYPE(None, *[ctypes.c_uint64] * (len(fixed) + 1))(launch.address)
        tasks = list(range(launch.tasks))[:: -1 if backwards else 1]
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda task, f=function, a=fixed: f(*a, task), tasks))
    return {key: guarded.view().copy() for key, guarded in copies.items()}
