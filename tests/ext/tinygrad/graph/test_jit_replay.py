import numpy as np
import pytest
from tinygrad import Tensor, TinyJit, UOp
from tinygrad.device import Device
from tinygrad.helpers import DEBUG

from ext.tinygrad import buffers
from ext.tinygrad.graph import fast_replay, installation, native, pool
from ext.tinygrad.graph.profile import table

pytestmark = pytest.mark.slow

rng = np.random.default_rng(11)


def tensor(*shape: int) -> Tensor:
    return Tensor(rng.standard_normal(shape, dtype=np.float32), device="CPU").realize()


def captured(function, *arguments) -> TinyJit:
    jit = TinyJit(function)
    for _ in range(2):
        jit(*arguments)
    return jit


def test_it_computes_what_the_jit_computes(install):
    install(2)
    weights, pos = tensor(256, 256), UOp.variable("pos", -4, 8)
    x, other = tensor(64, 256), tensor(64, 256)
    jit = captured(lambda x, p: ((x @ weights).relu() + p).realize(), x, pos.bind(2))
    replay = fast_replay(jit, [x])
    for p in (5, -3):
        replay({"pos": p})
        result = replay.result.numpy().copy()
        np.testing.assert_array_equal(result, jit(x, pos.bind(p)).numpy())
        fresh = rng.standard_normal((64, 256), dtype=np.float32)
        buffers.write(x, fresh)
        replay({"pos": p})
        np.testing.assert_allclose(replay.result.numpy(), np.maximum(fresh @ weights.numpy(), 0) + p, rtol=1e-3, atol=1e-3)
    elsewhere = replay.bind([other])
    elsewhere({"pos": 1})
    result = elsewhere.result.numpy().copy()
    np.testing.assert_allclose(result, np.maximum(other.numpy() @ weights.numpy(), 0) + 1, rtol=1e-3, atol=1e-3)
    replay({"pos": 1})  # still bound to x
    assert not np.array_equal(replay.result.numpy(), result)


def test_a_missing_variable_is_an_error_and_nothing_is_run(install):
    install(1)
    x = tensor(8)
    replay = fast_replay(captured(lambda x, p: (x + p).realize(), x, UOp.variable("pos", 0, 8).bind(2)), [x])
    before = replay.result.numpy().copy()
    with pytest.raises(KeyError, match="pos"):
        replay({})
    np.testing.assert_array_equal(replay.result.numpy(), before)


def test_what_cannot_be_replayed_directly_is_refused_with_a_reason(install, capsys, monkeypatch):
    monkeypatch.setattr(DEBUG, "value", 1)
    x = tensor(8)
    plain = captured(lambda x: (x + 1).realize(), x)
    install(1)

    def refusal(jit: TinyJit, *inputs: Tensor) -> str:
        capsys.readouterr()
        assert fast_replay(jit, inputs) is None
        return capsys.readouterr().err

    jit = captured(lambda x: (x * 3).realize(), x)
    assert "is not captured yet" in refusal(TinyJit(lambda x: x.realize()), x)
    assert "as 1 calls, not as one graph" in refusal(plain, x)
    assert "takes 1 input tensors, 0 are given" in refusal(jit)
    assert "also an output of the graph" in refusal(jit, jit.captured.ret)
    assert fast_replay(jit, [x]) is not None


def test_profiling_names_every_kernel_and_adds_up(install):
    install(2)
    weights = tensor(512, 512)
    x = tensor(128, 512)
    jit = captured(lambda x: ((x @ weights).relu() @ weights).softmax().realize(), x)
    replay = fast_replay(jit, [x])
    expected = jit(x).numpy().copy()
    times = replay.profile({}, replays=5)
    assert len(times) == len(replay.runner.launches) and all(len(time.samples) == 5 for time in times)
    assert all(time.ns > 0 and time.name and "\x1b" not in time.name for time in times)
    assert max(times, key=lambda time: time.ns).tasks > 1
    assert times[0].nbytes == (128 * 512 + 512 * 512 + 128 * 512) * 4
    assert times[0].name[:10] in table(times) and "together" in table(times)
    np.testing.assert_array_equal(replay.result.numpy(), expected)
    assert not replay.runner.graph.plan.native.times, "profiling goes on"


def test_where_the_native_part_does_not_compile_the_plain_jit_serves(capsys, monkeypatch):
    def fail(*_):
        raise FileNotFoundError("clang")

    monkeypatch.setattr(DEBUG, "value", 1)
    monkeypatch.setattr(native.ClangCompiler, "compile_cached", fail)
    monkeypatch.setattr(pool, "_pool", None)
    native.entry.cache_clear()
    try:
        assert installation.install(2) is False
    finally:
        native.entry.cache_clear()
    assert "replayed by tinygrad, kernel by kernel: replay.c could not be compiled (FileNotFoundError: clang)" in capsys.readouterr().err
    assert Device["CPU"].graph is None


def test_uninstalling_leaves_tinygrad_as_it_was():
    from tinygrad.helpers import JIT_BATCH_SIZE, NUM_CPU_THREADS, getenv

    before = (Device["CPU"].graph, JIT_BATCH_SIZE.value, NUM_CPU_THREADS.value, getenv("GRAPH_ONE_KERNEL"))
    installation.install(1)
    assert (JIT_BATCH_SIZE.value, getenv("GRAPH_ONE_KERNEL")) == (0, 1)
    installation.uninstall()
    assert (Device["CPU"].graph, JIT_BATCH_SIZE.value, NUM_CPU_THREADS.value, getenv("GRAPH_ONE_KERNEL")) == before
