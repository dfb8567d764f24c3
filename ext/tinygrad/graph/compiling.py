"""Compiling a captured graph's kernels: C sources in threads that wait for clang, where tinygrad would start worker processes first.

tinygrad 0.14 spawns its pool, 0.4 s of Python start-up, as soon as two kernels are new to the process, even when all of them lie compiled
on the disk. For kernels that it has to generate and optimise the pool is worth that; for C sources threads do as well.
"""

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from tinygrad import UOp
from tinygrad.engine import realize
from tinygrad.helpers import diskcache_get, diskcache_put
from tinygrad.uop.ops import Ops

from ext.tinygrad import kernel_cache

Listener = Callable[[int, int], None]  # (kernels compiled, kernels to compile): called only when one has to be compiled

listener: Listener | None = None  # set by the code that shows progress
_tinygrads_pool: Callable[[], Any] | None = None


def install() -> None:
    """Compile the sources of captured graphs in threads from now on."""
    global _tinygrads_pool
    kernel_cache.install()
    if _tinygrads_pool is None and hasattr(realize, "get_worker_pool"):
        _tinygrads_pool = realize.get_worker_pool
        realize.get_worker_pool = _Compilers


def uninstall() -> None:
    global _tinygrads_pool
    if _tinygrads_pool is not None:
        realize.get_worker_pool, _tinygrads_pool = _tinygrads_pool, None


class _Compilers:
    """Stands where tinygrad expects a multiprocessing.Pool."""

    def imap_unordered(self, function: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[Any]:
        """What function (realize._compile_kernel) makes of each task (index, (kernel, renderer), context)."""
        tasks = list(tasks)
        generated = [task for task in tasks if task[1][0].op is not Ops.PROGRAM]
        if len(generated) > 1 and _tinygrads_pool is not None and (pool := _tinygrads_pool()) is not None:
            ready = [task for task in tasks if task[1][0].op is Ops.PROGRAM]
            try:
                yield from pool.imap_unordered(function, generated)
            except sqlite3.OperationalError:  # a worker's cache met a full disk: ours outlives that
                yield from map(function, generated)
        else:
            ready = tasks
        _compile([(ast, renderer.compiler) for _, (ast, renderer), _ in ready if ast.op is Ops.PROGRAM])
        yield from map(function, ready)


def _compile(kernels: list[tuple[UOp, Any]]) -> None:
    """Put what is not on the disk yet there; tinygrad then finds it."""
    missing = {}
    for ast, compiler in kernels:
        source = next((u.arg for u in ast.src if u.op is Ops.SOURCE), None)
        if source is not None and compiler.cachekey is not None and diskcache_get(compiler.cachekey, source) is None:
            missing[compiler.cachekey, source] = compiler
    if not missing:
        return
    # one more than there are processors hides the start of each clang
    with ThreadPoolExecutor((os.cpu_count() or 1) + 1) as threads:
        jobs = {threads.submit(compiler.compile, source): (key, source) for (key, source), compiler in missing.items()}
        for done, job in enumerate(as_completed(jobs), 1):
            if job.exception() is None:  # tinygrad meets the error again, and tells it its own way
                diskcache_put(*jobs[job], job.result())  # by this thread: the connection to the cache is not shared
            if listener:
                listener(done, len(jobs))
