"""Captured graphs kept across starts, in a form of their own: machine code, what each launch is given, how much memory lies between.

A graph can be kept where all that it touches are its inputs, its variables and buffers that its own capture made. Reading one back costs a
millisecond, where tracing, scheduling and looking up compiled kernels costs 30 to 60. A file is machine code of the user's own making, like
tinygrad's cache of compiled kernels beside it; its digest tells damage.
"""

import base64
import functools
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tinygrad import Tensor
from tinygrad.device import Buffer, Device, TinyELF
from tinygrad.dtype import _from_np_dtype, _to_np_dtype
from tinygrad.engine.realize import get_graph_runtime
from tinygrad.helpers import ContextVar
from tinygrad.runtime.ops_cpu import CPUProgram
from tinygrad.uop.ops import Ops, buffers

from ext.tinygrad.graph import native
from ext.tinygrad.graph.captured import ArgumentUpdate, why_not
from ext.tinygrad.graph.cpu_runner import CPUGraphRunner, PoolGraph, address
from ext.tinygrad.graph.launch_plan import PooledLaunch
from ext.tinygrad.graph.profile import say
from ext.tinygrad.graph.task_ranges import Stretch
from ext.tinygrad.kernel_cache import compiler_identity
from ext.tinygrad.kernels.packed import memory

MAGIC = b"townhall-graphs-2\n"
ROOT = Path(__file__).parents[1]
DIGEST = 32  # bytes
COPY = -1  # in place of a kernel's number: libc's memcpy


@dataclass(frozen=True)
class StoredGraph:
    """A captured graph of CPU kernels, without what it was captured from."""

    vars: list[str]
    slots: list[int]
    launches: list[PooledLaunch]
    results: list[Tensor | None]  # what the captured function returned; None for what it stored into an input
    memory: tuple[Any, ...]  # kernels and intermediate buffers

    place = staticmethod(address)
    assemble = staticmethod(PoolGraph)


def known_buffers() -> frozenset[int]:
    """Every buffer there is. Ask before a capture: what is not among them afterwards is the capture's own."""
    return frozenset(id(buffer.base) for buffer in buffers.values() if isinstance(buffer, Buffer))


def describe(jit: Any, inputs: Sequence[Tensor], known: frozenset[int], binaries: list[bytes]) -> dict[str, Any] | None:
    """A captured TinyJit as JSON would have it, its machine code appended to `binaries`; None, saying why at DEBUG=1, if it cannot be kept.

    `known` is what known_buffers() said before the capture."""
    if (obstacle := why_not(jit, inputs)) is not None:
        say(f"a graph is captured anew at every start: {obstacle}")
        return None
    runner: CPUGraphRunner = get_graph_runtime(jit.captured.linear.src[0].src[0])
    results = [jit.captured.ret] if isinstance(jit.captured.ret, Tensor) else jit.captured.ret
    own: dict[int, tuple[int, int]] = {}  # id of a buffer of the graph's own → (number, bytes)
    launches = []

    def place(buffer: Buffer) -> list[int]:
        base = buffer.base
        number, _ = own.setdefault(id(base), (len(own), base.nbytes))
        return [number, buffer.offset]

    for (_, ast, bufs, _), launch in zip(runner.calls, runner.launches, strict=True):
        changed = {change.argument for change in launch.changes}
        arguments: list[int | list[int]] = [int(argument) for argument in launch.arguments]
        positions = ast.arg.globals if ast.op is Ops.PROGRAM else range(len(bufs))
        for argument, position in enumerate(positions):
            if argument in changed:
                arguments[argument] = 0
            elif id(bufs[position].base) in known:
                say(f"{launch.name} uses a buffer that is no input of its graph: it is captured anew at every start")
                return None
            else:
                arguments[argument] = place(bufs[position])
        kernel = COPY
        if ast.op is Ops.PROGRAM:
            code = ast.to_elf().lib
            kernel = binaries.index(code) if code in binaries else len(binaries)
            binaries[kernel:] = binaries[kernel:] or [code]
        changes = [[change.argument, change.value, change.addend] for change in launch.changes]
        launches.append([kernel, launch.name, arguments, changes, launch.core_slot, launch.cores, launch.reads, launch.nbytes])
    kept: list[Any] = []
    for result in results:
        buffer = result.uop.base.realized
        if isinstance(buffer, Buffer) and id(buffer.base) in own and buffer.nbytes == result.nbytes():
            kept.append([*place(buffer), list(result.shape), np.dtype(_to_np_dtype(result.dtype)).str])
        else:
            kept.append(None)
    return {
        "vars": runner.vars,
        "slots": runner.slots,
        "launches": launches,
        "own": [nbytes for _, nbytes in own.values()],
        "results": kept,
    }


def key(*facts: object) -> str:
    """A name for graphs that follow from these facts, tinygrad's settings, the sources beside this one, the compiler and the processor."""
    digest = hashlib.sha256(repr(facts).encode())
    digest.update(repr(sorted((name, variable.value) for name, variable in ContextVar._cache.items())).encode())
    digest.update(compiler_identity(os.environ.get("CC", "clang")).encode())
    digest.update(repr(Device["CPU"].renderer.target).encode())
    digest.update(_sources())
    return digest.hexdigest()[:32]


@functools.cache
def _sources() -> bytes:
    """Of everything here that decides what a capture holds."""
    files = sorted(
        [*ROOT.glob("graph/*.py"), *ROOT.glob("kernels/*.py"), *ROOT.glob("kernels/cpu/*.py"), *ROOT.glob("kernels/cpu/c/*.[ch]")]
    )
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).digest()


def pack(graphs: Mapping[str, Mapping[str, Any]], binaries: Sequence[bytes]) -> bytes:
    """Described graphs and their machine code as a file's content."""
    text = json.dumps({"graphs": graphs, "binaries": [base64.b64encode(code).decode() for code in binaries]}).encode()
    return MAGIC + hashlib.blake2b(text, digest_size=DIGEST).digest() + text


def unpack(content: bytes) -> dict[str, StoredGraph]:
    """What `pack` packed, ready to be composed. Raises ValueError for anything else."""
    text = content[len(MAGIC) + DIGEST :]
    if not content.startswith(MAGIC) or content[len(MAGIC) :][:DIGEST] != hashlib.blake2b(text, digest_size=DIGEST).digest():
        raise ValueError("damaged, or of another kind")
    stored = json.loads(text)
    device, target = Device["CPU"], Device["CPU"].renderer.target
    programs = [CPUProgram(device, TinyELF(base64.b64decode(code), "kept", target, ())) for code in stored["binaries"]]
    return {name: _graph(graph, programs) for name, graph in stored["graphs"].items()}


def _graph(graph: Mapping[str, Any], programs: Sequence[CPUProgram]) -> StoredGraph:
    own = [memory.allocate(nbytes) for nbytes in graph["own"]]
    starts = [array.ctypes.data for array in own]
    launches = []
    for kernel, name, stored, changes, core_slot, cores, reads, nbytes in graph["launches"]:
        entry = native.function_address("memcpy") if kernel == COPY else programs[kernel].addr
        arguments = [starts[a[0]] + a[1] if isinstance(a, list) else a for a in stored]
        stretches = None if reads is None else [Stretch(*read) for read in reads]
        updates = [ArgumentUpdate(*change) for change in changes]
        launches.append(PooledLaunch(entry, arguments, updates, core_slot, cores, stretches, name, nbytes))
    results: list[Tensor | None] = []
    for result in graph["results"]:
        if result is None:
            results.append(None)
            continue
        number, offset, shape, dtype = result
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        results.append(memory.as_tensor(own[number][offset : offset + nbytes], "CPU", _from_np_dtype(np.dtype(dtype)), tuple(shape)))
    return StoredGraph(graph["vars"], graph["slots"], launches, results, (tuple(programs), tuple(own)))
