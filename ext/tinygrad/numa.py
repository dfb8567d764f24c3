"""Memory nodes (NUMA): which of them this process has, and weights whose pages take turns over them.

Every thread reads rows of every weight, whichever it claims. By the system's default memory is on the node of the thread that first writes
it: all weights on one node, which then serves every core. So where a process may use processors of several nodes, weights are interleaved
(mbind, set_mempolicy: Linux); KV caches stay where they are first written. Elsewhere no system call is made. Where one is refused, as by a
container's seccomp filter, the system's default placement stays, and `townhall devices` reports the refusal.
"""

import ctypes
import functools
import mmap
import os
import platform
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ext.tinygrad import system_files

MPOL_DEFAULT, MPOL_INTERLEAVE = 0, 3
MPOL_F_ADDR = 2
MOST_NODES = 1024  # the kernel's own limit
_CALLS = {"x86_64": (237, 238, 239), "aarch64": (235, 237, 236)}  # mbind, set_mempolicy, get_mempolicy; the C library has none of them
_WORD = 8 * ctypes.sizeof(ctypes.c_ulong)


@dataclass(frozen=True)
class Placement:
    """Where weights and caches lie."""

    nodes: tuple[int, ...]  # with memory that this process may take; none where the system does not tell
    interleaved: bool = False  # are weights?
    reason: str = ""  # why not, where there are several

    def describe(self) -> str:
        """One line for people; nothing where the system tells nothing."""
        if not self.nodes:
            return ""
        nodes = f"memory of node{'s' * (len(self.nodes) > 1)} {', '.join(map(str, self.nodes))}"
        if self.interleaved:
            return f"{nodes}: weights interleaved over them, KV caches by first touch"
        return f"{nodes}: weights and KV caches by first touch" + (f" ({self.reason})" if self.reason else "")

    def to_json(self) -> dict[str, object]:
        weights = "interleaved" if self.interleaved else "first touch"
        return {"nodes": list(self.nodes), "weights": weights, "kv_caches": "first touch", "reason": self.reason or None}


@functools.cache
def placement() -> Placement:
    """This process's, found once."""
    return find_placement()


def find_placement(root: Path = Path("/"), cpus: Iterable[int] | None = None) -> Placement:
    """That of a process on these processors, by default those it may use; `root` is for tests."""
    folder = root / "sys/devices/system/node"
    nodes = numbers(system_files.read(folder / "has_memory"))
    if len(nodes) < 2:
        return Placement(tuple(nodes))
    allowed = re.search(r"^Mems_allowed_list:\s*(\S+)", system_files.read(root / "proc/self/status"), re.MULTILINE)
    nodes = [node for node in nodes if allowed is None or node in numbers(allowed[1])]
    if len(nodes) < 2:
        return Placement(tuple(nodes), reason="this process may take memory of no other")
    mine = set(os.sched_getaffinity(0) if cpus is None else cpus)
    used = [
        node
        for node in numbers(system_files.read(folder / "online"))
        if mine.intersection(numbers(system_files.read(folder / f"node{node}/cpulist")))
    ]
    if len(used) < 2:
        return Placement(tuple(nodes), reason=f"this process runs on node {', '.join(map(str, used)) or 'unknown'} alone")
    try:
        if policy()[0] != MPOL_DEFAULT:
            return Placement(tuple(nodes), reason="it was started with a memory policy of its own, which is kept")
        _mbind(np.frombuffer(mmap.mmap(-1, mmap.PAGESIZE), np.uint8), nodes)
    except OSError as error:
        return Placement(tuple(nodes), reason=f"interleaving is refused: {error.strerror}")
    return Placement(tuple(nodes), interleaved=True)


def numbers(text: str) -> list[int]:
    """ "0-2,8" → [0, 1, 2, 8], as the kernel lists processors and nodes; nothing for anything else."""
    found = list[int]()
    for part in text.strip().split(","):
        if match := re.fullmatch(r"(\d+)(?:-(\d+))?", part):
            found += range(int(match[1]), int(match[2] or match[1]) + 1)
    return found


def spread(memory: np.ndarray) -> None:
    """Have whole pages of memory that nothing was written to yet come from the nodes in turn, where weights are interleaved."""
    if (here := placement()).interleaved:
        try:
            _mbind(memory, here.nodes)
        except OSError:
            pass  # where it lies changes no result


@contextmanager
def spread_reads() -> Iterator[None]:
    """What this thread meanwhile reads of files that no one has read yet is kept on the nodes in turn, where weights are interleaved.

    Pages of a file stay on the node that the first read put them on until the page cache drops them."""
    here = placement()
    if here.interleaved:
        _set_policy(MPOL_INTERLEAVE, here.nodes)
    try:
        yield
    finally:
        if here.interleaved:
            _set_policy(MPOL_DEFAULT, ())


def policy(memory: np.ndarray | None = None) -> tuple[int, list[int]]:
    """(mode, nodes) that pages of `memory` are taken by, by default those of this thread. Raises OSError."""
    mode, mask = ctypes.c_int(), _mask(())
    address, flags = (None, 0) if memory is None else (memory.ctypes.data, MPOL_F_ADDR)
    _call(2, ctypes.byref(mode), mask, ctypes.c_ulong(MOST_NODES), ctypes.c_void_p(address), ctypes.c_ulong(flags))
    return mode.value, [node for node in range(MOST_NODES) if mask[node // _WORD] >> node % _WORD & 1]


def _mbind(memory: np.ndarray, nodes: Iterable[int]) -> None:
    first = -(-memory.ctypes.data // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (memory.ctypes.data + memory.nbytes - first) // mmap.PAGESIZE * mmap.PAGESIZE
    if length > 0:
        _call(0, *map(ctypes.c_ulong, (first, length, MPOL_INTERLEAVE)), _mask(nodes), ctypes.c_ulong(MOST_NODES + 1), ctypes.c_ulong(0))


def _set_policy(mode: int, nodes: Iterable[int]) -> None:
    try:
        _call(1, ctypes.c_long(mode), _mask(nodes), ctypes.c_ulong(MOST_NODES + 1))
    except OSError:
        pass


def _mask(nodes: Iterable[int]) -> "ctypes.Array[ctypes.c_ulong]":
    mask = (ctypes.c_ulong * (MOST_NODES // _WORD))()
    for node in nodes:
        mask[node // _WORD] |= 1 << node % _WORD
    return mask


def _call(which: int, *arguments: object) -> None:
    """One of `_CALLS`. Raises OSError."""
    if sys.platform != "linux" or (calls := _CALLS.get(platform.machine())) is None or sys.maxsize < 1 << 32:
        raise OSError(0, f"not known on {platform.machine()}")
    if _libc().syscall(ctypes.c_long(calls[which]), *arguments) != 0:
        raise OSError(number := ctypes.get_errno(), os.strerror(number))


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
