"""How many threads compute: THREADS=n, or as many physical cores as this process may use."""

import os
from pathlib import Path

from ext.tinygrad.errors import TownhallError

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
        siblings = _read(topology / "core_cpus_list") or _read(topology / "thread_siblings_list")
        cores.add(siblings or str(cpu))
    return len(cores)


def cgroup_quota(root: Path = Path("/")) -> float | None:
    """CPUs' worth of time that the control groups above this process grant it, version 1 or 2; None where they set no limit."""
    quotas = []
    for line in _read(root / "proc/self/cgroup").splitlines():
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
    limit, _, period = _read(folder / "cpu.max").partition(" ")
    return int(limit) / int(period) if limit.isdecimal() and period.isdecimal() and int(period) else None


def _quota_v1(folder: Path) -> float | None:
    limit, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
    return int(limit) / int(period) if limit.isdecimal() and period.isdecimal() and int(period) else None  # -1: no limit


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
