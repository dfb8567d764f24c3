import importlib.util
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from ext.tinygrad.graph import native
from ext.tinygrad.graph.pool import Pool, cpu_time_is_fine

pytestmark = pytest.mark.slow

# tests are no package (--import-mode=importlib), so their helpers are loaded by path
spec = importlib.util.spec_from_file_location("graph_c_kernels", Path(__file__).with_name("c_kernels.py"))
kernels = importlib.util.module_from_spec(spec)
spec.loader.exec_module(kernels)

ROOT = Path(__file__).parents[4]


@pytest.fixture
def pool():
    """pool(threads, **options); all are stopped at the end."""
    pools = []

    def make(threads: int, **options) -> Pool:
        pools.append(Pool(threads, **options))
        return pools[-1]

    yield make
    for one in pools:
        one.stop()
        assert not any(thread.is_alive() for thread in one.helpers)


def run_python(code: str, timeout: float = 240) -> subprocess.CompletedProcess:
    """A Python of its own, with `kernels` and Pool at hand."""
    head = f"""
        import importlib.util, os, sys, threading, time
        from ext.tinygrad.toolchain import prepare_environment
        prepare_environment()
        from ext.tinygrad.graph.pool import Pool, use_threads
        spec = importlib.util.spec_from_file_location("kernels", {str(Path(__file__).with_name("c_kernels.py"))!r})
        kernels = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(kernels)
    """
    return subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(head) + textwrap.dedent(code)],
        cwd=ROOT, env={**os.environ, "DEV": "CPU", "CPU": "", "GPU": ""}, timeout=timeout, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("adaptive", [True, False], ids=["adaptive", "always all threads"])
@pytest.mark.parametrize("threads", [2, 5])
def test_ten_thousand_replays_beside_a_busy_process_are_all_right(pool, threads, adaptive):
    chain = kernels.Chain()
    expected, deadline = chain.expected(), time.monotonic() + 3
    one = pool(threads, adaptive=adaptive)
    # it ends by itself, should this process be killed
    busy = subprocess.Popen([sys.executable, "-c", "import time; end = time.monotonic() + 10\nwhile time.monotonic() < end: pass"])
    try:
        for count in range(10_000):
            assert chain.replay(one) == expected, f"replay {count}"
            if count > 100 and time.monotonic() > deadline:  # a machine with nothing to spare: what was done by then must do
                break
    finally:
        busy.kill()
        busy.wait()
    # that it has been shared at all is another test's business: here the helpers may have been away all the time


def test_helpers_do_their_part(pool):
    one, chain, deadline = pool(2, adaptive=False), kernels.Chain(tasks=64, length=200), time.monotonic() + 60
    while one.state.slots[1].tasks < 100:
        chain.replay(one)
        assert time.monotonic() < deadline, "the helper has done nothing"


def test_helpers_let_others_run_while_cores_are_offered(pool):
    one, chain, deadline = pool(2, adaptive=False), kernels.Chain(tasks=64, length=200), time.monotonic() + 60
    while not one.state.slots[1].yields:
        one.offer_cores(True)
        assert chain.replay(one) == chain.expected()
        assert not one.state.offered
        assert time.monotonic() < deadline, "the helper has done nothing, or kept its core"

    def work(tasks: int) -> None:
        before = one.state.slots[1].tasks
        while one.state.slots[1].tasks < before + tasks:
            chain.replay(one)
            assert time.monotonic() < deadline, "the helper has done nothing"

    work(1)  # it may have seen the last offer just before that ended
    before = one.state.slots[1].yields
    work(100)
    assert (one.state.slots[0].yields, one.state.slots[1].yields) == (
        0,
        before,
    )  # an offer ends with a replay; who is waited for keeps its core


def wait_until_asleep(pool: Pool) -> None:
    helpers, deadline = 2**pool.threads - 2, time.monotonic() + 60
    while pool.state.parked != helpers:
        assert time.monotonic() < deadline, f"awake: {helpers & ~pool.state.parked:b}"
        time.sleep(0.001)


def test_without_work_helpers_sleep_and_short_graphs_let_them(pool):
    one, chain = pool(3, adaptive=False), kernels.Chain(tasks=64, length=2000)
    for _ in range(3):
        assert chain.replay(one) == chain.expected()
        wait_until_asleep(one)
    short, before = kernels.Chain(length=5), [slot.parks for slot in one.state.slots]
    for _ in range(5):
        short.plan.native.last_ns = 5000  # what it takes where nobody disturbs it
        assert short.replay(one) == short.expected()
    assert one.state.parked == 0b110 and [slot.parks for slot in one.state.slots] == before


def test_the_calling_thread_sleeps_while_a_helper_is_long_at_the_last_task(pool):
    one, slow = pool(2, adaptive=False), kernels.slow_last_task()
    deadline = time.monotonic() + 60
    while not one.state.slots[0].parks:
        one.replay(slow.address, 0)
        assert time.monotonic() < deadline, "the helper never took it"


def test_threads_that_replay_at_the_same_time_do_not_disturb_each_other(pool):
    one, chains, wrong = pool(3), [kernels.Chain(tasks=16, length=3000 + index) for index in range(3)], []

    def use(chain: object) -> None:
        expected = chain.expected()
        for _ in range(30):
            if chain.replay(one) != expected:
                wrong.append(chain)

    threads = [threading.Thread(target=use, args=(chain,)) for chain in chains]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads cannot be put on one core here")
def test_a_thread_that_is_robbed_of_its_core_is_given_up_and_tried_again():
    """Two threads on one core rob each other, so the helper must go; later it must be tried again."""
    if not cpu_time_is_fine():
        pytest.skip("CPU time is counted in ticks here")
    result = run_python("""
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        pool, chain = Pool(2), kernels.Chain(tasks=64, length=8000)
        expected, end = chain.expected(), time.monotonic() + 50
        while pool.state.returns < 2 and time.monotonic() < end:
            assert chain.replay(pool) == expected
        print(pool.state.drops >= 2, pool.state.returns >= 2, pool.state.solo_runs > 0)
    """)
    assert (result.stdout.strip(), result.stderr, result.returncode) == ("True True True", "", 0)


def test_a_helper_is_tried_again_in_the_middle_of_a_long_replay(pool):
    one, chain = pool(2), kernels.Chain(tasks=64, length=20_000)
    if not one.adaptive:
        pytest.skip("CPU time is counted in ticks here")
    expected = chain.expected()
    assert chain.replay(one) == expected  # from now on the graph is known to be a long one
    before, alone = one.state.returns, one.state.solo_runs
    one.state.active = 0
    one.state.resume_at = time.clock_gettime_ns(time.CLOCK_MONOTONIC) + 1_000_000  # much less than a replay takes
    assert chain.replay(one) == expected
    # on a machine so busy that a millisecond passed before the replay began, the helper came at its start
    assert one.state.returns > before and one.state.solo_runs - alone <= 1


@pytest.mark.parametrize("ending", ["", "sys.exit(3)", "threading.Thread(target=forever, daemon=True).start(); time.sleep(0.05)"])
def test_a_process_ends_at_once_and_without_a_sound(ending):
    result = run_python(f"""
        pool, chain = use_threads(3), kernels.Chain()
        def forever():
            while True:
                pool.replay(chain.plan.address, chain.values.buffer_info()[0])
        assert chain.replay(pool) == chain.expected()
        {ending}
    """)
    assert (result.stdout, result.stderr, result.returncode) == ("", "", 3 if "3" in ending else 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_replays_with_helpers_of_its_own():
    result = run_python("""
        pool, chain = use_threads(2, adaptive=False), kernels.Chain()
        for _ in range(10):
            assert chain.replay(pool) == chain.expected()
        if (child := os.fork()) == 0:
            for _ in range(10):
                assert chain.replay(pool) == chain.expected()
            assert [thread.is_alive() for thread in pool.helpers] == [True]
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        for _ in range(10):
            assert chain.replay(pool) == chain.expected()
    """)
    assert (result.stdout, result.stderr, result.returncode) == ("", "", 0)


def test_a_system_that_grants_no_threads_is_served_by_the_calling_one(pool, monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    one, chain = pool(4), kernels.Chain()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert chain.replay(one) == chain.expected()
    assert (one.helpers, one.state.helpers) == ([], 0)


def test_kernels_with_one_task_in_a_row_are_one_step():
    from ext.tinygrad.graph.launch_plan import PooledLaunch, group

    launches = [PooledLaunch(0, [0], core_slot=None if cores == 1 else 0, cores=cores) for cores in (1, 1, 4, 2, 1, 1, 1, 3)]
    assert group(launches) == [(0, 2, 1), (2, 1, 4), (3, 1, 2), (4, 3, 1), (7, 1, 3)]


def test_the_second_start_compiles_nothing(monkeypatch):
    native.entry()
    native.entry.cache_clear()
    monkeypatch.setattr(native.ClangCompiler, "compile", lambda *_: pytest.fail("compiled again"))
    try:
        native.entry()
    finally:
        native.entry.cache_clear()
