"""A disk that refuses to take compiled kernels costs the next start, not this one."""

import os
import resource
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from tinygrad import helpers

from ext.tinygrad import kernel_cache

pytestmark = pytest.mark.slow

COMPUTE = """
import sys
from concurrent.futures import ThreadPoolExecutor
from ext.tinygrad.backend import open_backend
open_backend()
from tinygrad import Tensor
print((Tensor([1.0, 2.0, 3.0]) * float(sys.argv[1])).tolist(), (Tensor.ones(64, 64).contiguous() @ Tensor.ones(64, 64)).sum().item())
from tinygrad.engine import worker
assert worker.worker_pool is not None
"""


def compute(cache: Path, factor: int, bytes_for_a_file: int = resource.RLIM_INFINITY) -> subprocess.CompletedProcess[str]:
    limit = (bytes_for_a_file, resource.RLIM_INFINITY)
    return subprocess.run(
        [sys.executable, "-c", COMPUTE, str(factor)],
        env=os.environ | {"CACHEDB": str(cache), "DEV": "CPU", "PARALLEL": "2", "PYTHONDONTWRITEBYTECODE": "1"},  # bytecode would be cut
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),  # the kernel refuses what goes beyond, as a full disk does
    )


@pytest.mark.parametrize("where, room", [("new.db", 4_096), ("new.db", 20_000), ("garbage.db", None), ("file/in/the/way.db", None)])
def test_kernels_are_compiled_and_run_where_the_cache_cannot_be_written(tmp_path: Path, where: str, room: int | None) -> None:
    (tmp_path / "garbage.db").write_text("no database at all " * 300)
    (tmp_path / "file").touch()
    done = compute(tmp_path / where, 2, resource.RLIM_INFINITY if room is None else room)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[2.0, 4.0, 6.0] 262144.0\n"


def test_a_cache_that_is_full_is_still_read(tmp_path: Path) -> None:
    cache = tmp_path / "cache.db"
    assert compute(cache, 2).stdout.startswith("[2.0")
    size = cache.stat().st_size
    for factor in (2, 3):
        done = compute(cache, factor, bytes_for_a_file=1000)
        assert done.returncode == 0 and done.stdout.startswith(f"[{factor}.0"), done.stderr
    assert cache.stat().st_size == size


def test_a_cache_opened_by_one_thread_serves_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server loads its model on one thread and answers on another; tinygrad's own connection serves only the one that came first."""
    with closing(sqlite3.connect(":memory:")) as own:
        monkeypatch.setattr(helpers, "_db_connection", own)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(kernel_cache.install).result()
            pool.submit(helpers.diskcache_put, "townhall_test", "key", "value").result()
        assert helpers.diskcache_get("townhall_test", "key") == "value"
