import importlib.util
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
from tinygrad import Tensor, TinyJit, UOp, dtypes
from tinygrad.engine.jit import create_graph_call
from tinygrad.engine.realize import graph_cache

from ext.tinygrad.graph import fast_replay
from ext.tinygrad.graph.cpu_runner import CPUGraphRunner
from ext.tinygrad.graph.pool import Pool, current_pool

pytestmark = pytest.mark.slow

# tests are no package (--import-mode=importlib), so their helpers are loaded by path
spec = importlib.util.spec_from_file_location("graph_c_kernels", Path(__file__).with_name("c_kernels.py"))
kernels = importlib.util.module_from_spec(spec)
spec.loader.exec_module(kernels)

rng = np.random.default_rng(7)


def tensor(*shape: int) -> Tensor:
    return Tensor(rng.standard_normal(shape, dtype=np.float32), device="CPU").realize()


def runners(jit) -> list:
    """What replays each call of a captured TinyJit: a graph runner, or None for tinygrad itself."""
    return [graph_cache.get(call.src[0]) for call in jit.captured.linear.src]


def captured_natively(jit) -> bool:
    return [type(runner) for runner in runners(jit)] == [CPUGraphRunner]


@pytest.mark.parametrize("threads", [1, 2])
def test_generated_kernels_compute_what_the_plain_jit_computes(install, threads):
    a, b, pos = tensor(256, 192), tensor(192, 64), UOp.variable("pos", 1, 32)

    def chain(x: Tensor, p: UOp) -> Tensor:
        hidden = ((x @ a).relu() @ b).softmax()
        return (hidden[:p].sum(0) + hidden.max(1).sum() * p).realize()

    plain, inputs = TinyJit(chain), [tensor(32, 256) for _ in range(5)]
    expected = [plain(x, pos.bind(p)).numpy().copy() for p, x in enumerate(inputs, 1)]
    install(threads)
    native = TinyJit(chain)
    results = [native(x, pos.bind(p)).numpy().copy() for p, x in enumerate(inputs, 1)]
    assert captured_natively(native) and not captured_natively(plain)
    for result, reference in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result, reference)


def test_a_c_kernel_runs_once_for_every_core_id(install):
    install(2)
    tasks, rows, columns = 7, 3, 33
    source = kernels.with_sizes(kernels.ROW_SUMS, ROWS=rows, COLUMNS=columns)

    @TinyJit
    def sums(a: Tensor) -> Tensor:
        out = Tensor.empty(tasks * rows, device="CPU")
        return (kernels.c_kernel(source, "row_sums", [out, a], tasks) * 2).realize()

    for _ in range(6):
        a = tensor(tasks * rows, columns)
        np.testing.assert_allclose(sums(a).numpy(), a.numpy().sum(1) * 2, rtol=1e-4, atol=1e-5)
    assert captured_natively(sums)
    assert [launch.cores for launch in runners(sums)[0].launches] == [tasks, 1]


def test_more_tasks_than_the_native_word_can_count_are_claimed_in_groups(install):
    install(2)
    tasks = 10_007
    source = kernels.with_sizes(kernels.ROW_SUMS, ROWS=1, COLUMNS=2)
    sums = TinyJit(lambda out, a: kernels.c_kernel(source, "row_sums", [out, a], tasks).realize())
    for _ in range(4):
        a, out = tensor(2 * tasks, 2), Tensor.zeros(2 * tasks, device="CPU").contiguous().realize()
        sums(out, a)
        result = out.numpy()
        np.testing.assert_array_equal(result[:tasks], a.numpy()[:tasks].sum(1))
        assert not result[tasks:].any(), "core ids that are none"
    assert captured_natively(sums)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_cache_is_written_in_place_at_the_variable_position(install, threads):
    install(threads)
    width, tasks, pos = 96, 4, UOp.variable("pos", 0, 9)
    source = kernels.with_sizes(kernels.STORE_ROW, WIDTH=width, TASKS=tasks)

    @TinyJit
    def store(cache: Tensor, row: Tensor, p: UOp) -> Tensor:
        after = kernels.c_kernel(source, "store_row", [cache, row * 2], tasks, p)
        return after.sum(0).realize()

    caches = [Tensor.zeros(10, width, device="CPU").contiguous().realize() for _ in range(2)]
    expected = np.zeros((2, 10, width), np.float32)
    for step in range(10):
        row, which = tensor(width), step % 2
        sums = store(caches[which], row, pos.bind(step)).numpy()
        expected[which, step] = row.numpy() * 2 + step
        np.testing.assert_allclose(sums, expected[which].sum(0), rtol=1e-4, atol=1e-5)
    assert captured_natively(store)
    for cache, content in zip(caches, expected, strict=True):
        np.testing.assert_array_equal(cache.numpy(), content)


def test_a_view_of_an_input_moves_with_the_input(install):
    """tinygrad copies a slice before it hands it to a kernel, so such a call is made by hand here."""
    install(2)
    source = kernels.with_sizes(kernels.ROW_SUMS, ROWS=1, COLUMNS=16)
    sums = TinyJit(lambda x: kernels.c_kernel(source, "row_sums", [Tensor.empty(4, device="CPU"), x], 4).realize())
    for _ in range(3):
        out = sums(tensor(4, 16))
    (call,) = runners(sums)[0].linear.src
    lower_half = UOp.param(0, dtypes.float32, (8 * 16,), "CPU").shrink(((4 * 16, 8 * 16),))
    first = tensor(8, 16)
    runner = CPUGraphRunner(create_graph_call([call.replace(src=(*call.src[:2], lower_half))]).src[0], (first.uop.base,))
    for x in (first, tensor(8, 16), tensor(8, 16)):
        runner((x.uop.base,), {})
        np.testing.assert_allclose(out.numpy(), x.numpy()[4:].sum(1), rtol=1e-4, atol=1e-5)


def test_results_are_the_same_to_the_last_bit_on_any_number_of_threads(install):
    a, b = tensor(512, 512), tensor(512, 512)

    def chain(x: Tensor) -> Tensor:
        for _ in range(3):
            x = ((x @ a).sin() @ b).softmax() + x.mean(1, keepdim=True)
        return x.realize()

    x, results = tensor(64, 512), []
    for threads in (1, 2, 3, 4, 5):
        install(threads)
        jit = TinyJit(chain)
        for _ in range(4):
            results.append(jit(x).numpy().tobytes())
        assert captured_natively(jit)
    assert max(launch.cores for launch in runners(jit)[0].launches) > 5, "nothing to share out: the test says nothing"
    assert len(set(results)) == 1


def test_two_graphs_take_turns(install):
    install(2)
    a, b = tensor(256, 256), tensor(256, 256)
    first, second = TinyJit(lambda x: (x @ a).realize()), TinyJit(lambda x: ((x @ b).sin() @ a).realize())
    for _ in range(8):
        x = tensor(64, 256)
        np.testing.assert_allclose(first(x).numpy(), x.numpy() @ a.numpy(), rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(second(x).numpy(), np.sin(x.numpy() @ b.numpy()) @ a.numpy(), rtol=1e-2, atol=1e-2)


def test_another_python_thread_can_replay_also_at_the_same_time(install):
    install(2)
    a = tensor(256, 256)
    jits = [TinyJit(lambda x, n=n: ((x @ a) * n).realize()) for n in (1, 2)]
    inputs = [tensor(64, 256) for _ in jits]
    for jit, x in zip(jits, inputs):
        for _ in range(3):
            jit(x)
    expected, failures = [jit(x).numpy().copy() for jit, x in zip(jits, inputs)], []
    replays = [fast_replay(jit, [x]) for jit, x in zip(jits, inputs)]

    def use(index: int) -> None:
        for _ in range(200):
            replays[index].result.uop.base.realized._buf.cpu_view()[:4] = b"\xff" * 4
            replays[index]({})
            if not np.array_equal(replays[index].result.numpy(), expected[index]):
                failures.append(index)

    threads = [threading.Thread(target=use, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_one_kernel_alone_is_a_graph_too(install):
    install(2)
    double = TinyJit(lambda x: (x * 2).realize())
    for _ in range(3):
        x = tensor(16)
        np.testing.assert_array_equal(double(x).numpy(), x.numpy() * 2)
    assert captured_natively(double)


def test_calls_it_cannot_serve_are_left_to_tinygrad_and_the_rest_is_not(install, capsys, monkeypatch):
    from tinygrad.helpers import DEBUG

    install(2)
    monkeypatch.setattr(DEBUG, "value", 1)
    other = tensor(64, 64)

    @TinyJit
    def over_there_and_back(x: Tensor) -> Tensor:
        there = (x + 1).contiguous().realize().to("CPU:1").contiguous().realize()
        return ((there * 2).realize().to("CPU") @ other).realize()

    for _ in range(3):
        x = tensor(64, 64)
        np.testing.assert_allclose(over_there_and_back(x).numpy(), (x.numpy() + 1) * 2 @ other.numpy(), rtol=1e-3, atol=1e-3)
    kinds = [type(runner) for runner in runners(over_there_and_back)]
    assert CPUGraphRunner in kinds and type(None) in kinds
    assert "runs outside of the graph: it is not on one CPU device" in capsys.readouterr().err


def test_a_missing_variable_is_named(install):
    install(1)
    pos = UOp.variable("pos", 1, 8)
    jit = TinyJit(lambda x, p: (x[:p].sum() + p).realize())
    x = tensor(8)
    for p in (1, 2, 3):
        jit(x, pos.bind(p))
    with pytest.raises(RuntimeError, match="unbound Variable 'pos'"):
        jit.captured([x.uop.base], {})


@pytest.mark.parametrize("threads_at_its_end", [2, 3])
def test_a_dead_graph_gives_its_memory_back(install, monkeypatch, threads_at_its_end):
    original = Pool.retire
    install(2)
    jit = TinyJit(lambda x: (x @ x).realize())
    x = tensor(256, 256)
    for _ in range(3):
        jit(x)
    runner, retired = weakref.ref(runners(jit)[0]), []
    install(threads_at_its_end)
    monkeypatch.setattr(Pool, "retire", lambda pool, graph, memory: retired.append(pool) or original(pool, graph, memory))
    del jit
    assert runner() is None and retired == [current_pool()], "the helpers that may look at it are the current pool's"
    for _ in range(12_000):  # until a helper that may still be looking at it has had a turn
        if not current_pool().collect():
            return
        time.sleep(0.005)
    pytest.fail("still in use")


def test_integer_arguments_of_every_count_arrive(install):
    """Six and eight are the ends of the registers on x86_64 and ARM; 63 is tinygrad's own limit."""
    install(2)
    for count in (1, 5, 6, 7, 8, 9, 12, 13, 16, 17, 31, 33, 61):
        names = [f"a{i}" for i in range(count)]
        source = f"void gather(int *out, {', '.join(f'const int *{name}' for name in names)}, int core_id) {{\n"
        source += "".join(f"out[core_id * {count} + {i}] = {name}[0] + core_id;\n" for i, name in enumerate(names)) + "}"
        inputs = [Tensor([100 * i], dtype=dtypes.int32, device="CPU").realize() for i in range(count)]

        def gather(*inputs: Tensor, source: str = source, count: int = count) -> Tensor:
            out = Tensor.empty(2, count, dtype=dtypes.int32, device="CPU")
            return kernels.c_kernel(source, "gather", [out, *inputs], 2).realize()

        jit = TinyJit(gather)
        for _ in range(3):
            result = jit(*inputs).numpy()
        np.testing.assert_array_equal(result, [[100 * i + core for i in range(count)] for core in range(2)])
        assert captured_natively(jit)
