"""The threads that replay graphs: one pool for the process, its helpers started at the first replay.

THREADS=n sets how many compute; without it, as many as there are physical cores that this process may use.
"""

import atexit
import ctypes
import mmap
import os
import threading
import time
from pathlib import Path
from typing import Any

from ext.tinygrad import system_files
from ext.tinygrad.errors import TownhallError
from ext.tinygrad.graph import native
from ext.tinygrad.graph.profile import say

MOST_THREADS = 64  # the native replay keeps one bit per thread


class ThreadsError(TownhallError):
    """THREADS is no number of threads."""


def thread_count() -> int:
    """What THREADS asks for, or default_threads(). Raises ThreadsError."""
    text = os.environ.get("THREADS", "").strip()
    if not text:
        return default_threads()
    if not text.isdecimal() or not 1 <= int(text) <= MOST_THREADS:
        raise ThreadsError(f"THREADS={text} is no whole number from 1 to {MOST_THREADS}: correct it, or unset it to use every core")
    return int(text)


def default_threads(root: Path = Path("/")) -> int:
    """Physical cores among the CPUs of our affinity mask, no more than the CPU time our control group is granted; `root` is for tests."""
    cores = physical_cores(allowed_cpus(), root)
    quota = cgroup_quota(root)
    return max(1, min(cores, MOST_THREADS if quota is None else int(quota), MOST_THREADS))


def allowed_cpus() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def physical_cores(cpus: set[int], root: Path = Path("/")) -> int:
    """How many cores the logical `cpus` are: siblings of one core count once. A machine that does not tell has one core per CPU."""
    cores = set()
    for cpu in cpus:
        topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        # the newer name first; both list the logical CPUs of one core
        siblings = system_files.read(topology / "core_cpus_list") or system_files.read(topology / "thread_siblings_list")
        cores.add(siblings or str(cpu))
    return len(cores)


def cgroup_quota(root: Path = Path("/")) -> float | None:
    """CPUs' worth of time that the control groups above this process grant it, version 1 or 2; None where they set no limit."""
    quotas = []
    for line in system_files.read(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if not controllers:
            folder, read = root / "sys/fs/cgroup", _quota_v2
        elif "cpu" in controllers.split(","):
            folder, read = root / "sys/fs/cgroup" / controllers, _quota_v1
            if not folder.is_dir():
                folder = root / "sys/fs/cgroup/cpu"
        else:
            continue
        # every ancestor's limit holds; a container sees its own group as the root of the file system, whatever its name outside
        parts = [part for part in group.split("/") if part not in ("", "..")]
        for depth in range(len(parts) + 1):
            if (quota := read(folder.joinpath(*parts[:depth]))) is not None:
                quotas.append(quota)
    return min(quotas, default=None)


def _quota_v2(folder: Path) -> float | None:
    limit, _, period = system_files.read(folder / "cpu.max").partition(" ")
    return int(limit) / int(period) if limit.isdecimal() and period.isdecimal() and int(period) else None


def _quota_v1(folder: Path) -> float | None:
    limit, period = system_files.read(folder / "cpu.cfs_quota_us"), system_files.read(folder / "cpu.cfs_period_us")
    return int(limit) / int(period) if limit.isdecimal() and period.isdecimal() and int(period) else None  # -1: no limit


SPIN_NS = 500_000  # how long a thread without work looks for some before it sleeps: a decode loop's pause between two tokens is shorter
FIRST_BACKOFF_NS = 20_000_000


class Pool:
    """N threads: the calling one and N - 1 helpers, which sleep while there is nothing to replay.

    The helpers are daemon threads of Python's that spend their life in one native call, without the GIL. They end with the interpreter.
    A process may fork while it is not replaying: the child has none of them and starts its own when it first replays. (But tinygrad's CPU
    buffers are shared memory: what one of the two processes computes, the other sees.)"""

    def __init__(self, threads: int, adaptive: bool = True):
        assert threads >= 1
        self.requested = threads
        self.threads = threads if native.can_help() else 1
        # a thread is not given up for lost CPU time where the system counts it in large steps
        self.adaptive = adaptive and self.threads > 1 and cpu_time_is_fine()
        self._call = native.entry()
        self._reset()

    def _reset(self) -> None:
        """Fresh state without helpers: at first, and in a forked child, which has none of its parent's threads."""
        self.helpers: list[threading.Thread] = []
        self._to_start = self.threads > 1
        self._starting = threading.Lock()
        self._retired: dict[int, object] = {}
        # private and page-aligned; never unmapped, see keep_for_ever
        memory = mmap.mmap(-1, ctypes.sizeof(native.PoolState), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        native.keep_for_ever(memory)
        self.state = native.PoolState.from_buffer(memory)
        self.state.word = native.FINISHED
        self.state.clock = native.function_address("clock_gettime")
        self.state.monotonic_clock, self.state.cpu_clock = time.CLOCK_MONOTONIC, time.CLOCK_THREAD_CPUTIME_ID
        if native.can_help():
            self.state.syscall = native.function_address("syscall")
            self.state.futex_number = native.futex_number()
            self.state.yield_ = native.function_address("sched_yield")
        self.state.spin_ns = SPIN_NS
        self.state.adaptive = self.adaptive
        self.state.backoff_ns = FIRST_BACKOFF_NS
        self.address = ctypes.addressof(self.state)

    def start(self) -> None:
        """Start the helpers if they are not there yet. A system that grants fewer threads gets fewer."""
        with self._starting:
            if not self._to_start:
                return
            self._to_start = False
            try:
                for index in range(1, self.threads):
                    thread = threading.Thread(
                        target=self._call, args=(native.Op.HELP, self.address, index, None), name=f"graph-helper-{index}", daemon=True
                    )
                    thread.start()
                    self.helpers.append(thread)
            except RuntimeError as error:
                say(f"{len(self.helpers) + 1} threads replay, not {self.threads}: {error}")
            finally:
                self.state.active = len(self.helpers)
                self.state.helpers = len(self.helpers)

    def replay(self, graph: int, values: int) -> None:
        """Run the native graph at address `graph` with the 64-bit `values` (variables, input addresses) at address `values`."""
        if self._to_start:
            self.start()
        self._call(native.Op.REPLAY, self.address, graph, values)

    def offer_cores(self, offered: bool) -> None:
        """While offered, and until the next replay ends, helpers let threads run between two tasks that wait for a core."""
        self.state.offered = offered

    def retire(self, graph: int, memory: object) -> None:
        """Let go of a graph's memory as soon as no helper can be looking at it: at once, or when another one is retired."""
        self._retired[graph] = memory
        self.collect()

    def collect(self) -> int:
        """Free retired memory that is no longer referenced; -> how many graphs must wait."""
        # runs wherever the garbage collector does, also within itself: hence nothing but single operations on the dictionary
        for graph in list(self._retired):
            if not self._call(native.Op.IN_USE, self.address, graph, None):
                self._retired.pop(graph, None)
        return len(self._retired)

    def stop(self) -> None:
        """End the helpers; replays go on with the calling thread alone."""
        self._to_start = False
        self._call(native.Op.STOP, self.address, None, None)
        for thread in self.helpers:
            thread.join(timeout=1)
        self.helpers = []


def cpu_time_is_fine() -> bool:
    """Whether the system tells a thread's CPU time to some microseconds; there are some that count it in ticks of milliseconds."""
    for _ in range(3):  # we may be away from the CPU ourselves just then
        wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
        while time.perf_counter_ns() - wall < 100_000:
            pass
        if 50_000 < time.thread_time_ns() - cpu < 200_000:
            return True
    return False


_pool: Pool | None = None


def current_pool() -> Pool:
    """The process's pool; use_threads() makes it."""
    assert _pool is not None, "install() comes first"
    return _pool


def offer_cores(offered: bool) -> None:
    """Pool.offer_cores of the process's pool, if there is one."""
    if _pool is not None:
        _pool.offer_cores(offered)


def retire(graph: int, memory: object) -> None:
    """Let go of a dead graph's memory as soon as no helper of the pool can be looking at it."""
    if _pool is not None:
        _pool.retire(graph, memory)


def use_threads(threads: int, **options: Any) -> Pool:
    """Make the pool, or another one if the number of threads changes; graphs already captured use it from their next replay on."""
    global _pool
    if _pool is None or _pool.requested != threads or options:
        old, _pool = _pool, Pool(threads, **options)
        if old is not None:
            old.stop()
    return _pool


def _after_fork_in_child() -> None:
    if _pool is not None:
        _pool._reset()


@atexit.register
def _at_exit() -> None:
    if _pool is not None:
        _pool.stop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
