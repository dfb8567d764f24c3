from pathlib import Path

import pytest

from ext.tinygrad.graph import pool
from ext.tinygrad.graph.pool import ThreadsError, cgroup_quota, default_threads, physical_cores, thread_count


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


def machine(root: Path, siblings: list[str], name: str = "core_cpus_list") -> None:
    """A /sys that tells which logical CPUs share a core with each."""
    for cpu, together in enumerate(siblings):
        write(root / f"sys/devices/system/cpu/cpu{cpu}/topology/{name}", together)


@pytest.mark.parametrize("name", ["core_cpus_list", "thread_siblings_list"])
def test_hyperthreads_of_one_core_count_once(tmp_path, name):
    machine(tmp_path, ["0,4", "1,5", "2,6", "3,7"] * 2, name)
    assert physical_cores(set(range(8)), tmp_path) == 4
    assert physical_cores({0, 4, 1}, tmp_path) == 2


def test_a_machine_without_topology_has_a_core_per_cpu(tmp_path):
    assert physical_cores({0, 1, 5}, tmp_path) == 3


@pytest.mark.parametrize(
    "limits, expected",
    [
        ({"sys/fs/cgroup/a/b/cpu.max": "150000 100000"}, 1.5),
        ({"sys/fs/cgroup/cpu.max": "300000 100000", "sys/fs/cgroup/a/cpu.max": "max 1000", "sys/fs/cgroup/a/b/cpu.max": "80000 10000"}, 3),
        ({"sys/fs/cgroup/a/b/cpu.max": "max 100000"}, None),
        ({"sys/fs/cgroup/a/b/cpu.max": "garbage"}, None),
        ({}, None),
    ],
)
def test_the_tightest_cgroup_v2_limit_on_the_way_up_holds(tmp_path, limits, expected):
    write(tmp_path / "proc/self/cgroup", "0::/a/b")
    for path, text in limits.items():
        write(tmp_path / path, text)
    assert cgroup_quota(tmp_path) == expected


@pytest.mark.parametrize("quota, expected", [("200000", 2), ("-1", None)])
@pytest.mark.parametrize("folder", ["cpu,cpuacct", "cpu"])
def test_cgroup_v1_limits_hold_and_minus_one_is_none(tmp_path, folder, quota, expected):
    write(tmp_path / "proc/self/cgroup", "9:memory:/x\n4:cpu,cpuacct:/docker/abc\n0::/")
    write(tmp_path / f"sys/fs/cgroup/{folder}/cpu.cfs_quota_us", quota)  # as a container sees its own group: as the root
    write(tmp_path / f"sys/fs/cgroup/{folder}/cpu.cfs_period_us", "100000")
    assert cgroup_quota(tmp_path) == expected


@pytest.mark.parametrize("cpus, limit, expected", [(8, "max 10000", 4), (8, "25000 10000", 2), (8, "5000 10000", 1), (2, "max 10000", 1)])
def test_the_default_is_the_least_of_cores_and_quota_but_one(tmp_path, monkeypatch, cpus, limit, expected):
    machine(tmp_path, ["0-1", "0-1", "2-3", "2-3", "4-5", "4-5", "6-7", "6-7"])
    write(tmp_path / "proc/self/cgroup", "0::/")
    write(tmp_path / "sys/fs/cgroup/cpu.max", limit)
    monkeypatch.setattr(pool, "allowed_cpus", lambda: set(range(cpus)))
    assert default_threads(tmp_path) == expected


def test_threads_from_the_environment_win(monkeypatch):
    monkeypatch.setenv("THREADS", " 3 ")
    assert thread_count() == 3
    monkeypatch.setenv("THREADS", "")
    assert thread_count() == default_threads() >= 1


@pytest.mark.parametrize("text", ["0", "-2", "65", "many", "1.5"])
def test_a_wrong_number_of_threads_is_said_in_a_sentence(monkeypatch, text):
    monkeypatch.setenv("THREADS", text)
    with pytest.raises(ThreadsError, match=f"THREADS={text} is no whole number from 1 to 64"):
        thread_count()
