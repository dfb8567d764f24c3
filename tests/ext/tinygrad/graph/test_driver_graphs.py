"""Captured graphs of OpenCL and CUDA kernels: one native call replays them, with the variables and buffers of the moment.

CUDA is the emulated driver of tests/reference/cuda_emulator."""

import sys
import threading
from collections.abc import Callable

import numpy as np
import pytest
from tinygrad import Device, Tensor, TinyJit, UOp
from tinygrad.device import TinyELF
from tinygrad.engine.realize import graph_cache
from tinygrad.helpers import DEBUG

from ext.tinygrad.buffers import read, upload, write
from ext.tinygrad.graph import fast_replay, install_on
from ext.tinygrad.graph.captured import NativeGraphRunner
from ext.tinygrad.graph.compose import Composite, compose
from ext.tinygrad.graph.profile import table

pytestmark = pytest.mark.slow


@pytest.fixture(params=["CL", "CUDA"])
def device(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "CUDA":
        request.getfixturevalue("cuda_emulator")
    else:
        from ext.tinygrad.backend import describe_device
        from ext.tinygrad.toolchain import BackendError

        try:
            describe_device(name)
        except BackendError as error:
            pytest.skip(str(error))
    assert install_on(name)
    return name


@pytest.fixture
def queue_class(device: str) -> type:
    from ext.tinygrad.graph.cuda_queue import CUDAQueue
    from ext.tinygrad.graph.opencl_queue import OpenCLQueue

    return {"CL": OpenCLQueue, "CUDA": CUDAQueue}[device]


@pytest.fixture
def native_calls(queue_class: type, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The kernels of each native call, as they are made."""
    calls: list[int] = []
    plain = queue_class.__call__

    def counted(queue, values: int) -> None:  # type: ignore[no-untyped-def]
        calls.append(len(queue.launches))
        plain(queue, values)

    monkeypatch.setattr(queue_class, "__call__", counted)
    return calls


@pytest.fixture(params=["C", "Python"])
def entry(request: pytest.FixtureRequest, queue_class: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop over the kernels: compiled, and as it runs where there is no clang."""
    if request.param == "Python":
        monkeypatch.setattr(sys.modules[queue_class.__module__], "entry", lambda: None)
    else:
        assert sys.modules[queue_class.__module__].entry() is not None


def numbers(device: str, *values: float) -> Tensor:
    return upload(np.array(values, np.float32), device)


def window_sums() -> tuple[Callable[..., Tensor], UOp]:
    """Several kernels whose work depends on a variable."""
    position = UOp.variable("position", 0, 6)

    def function(x: Tensor, at: UOp) -> Tensor:
        doubled = (x[at : at + 2] * 2).contiguous()
        return (doubled + at).contiguous().realize()

    return function, position


class Layers:
    """x = tanh(w @ x) + position, three times, with one capture for all layers; only the second of its kernels takes the position."""

    def __init__(self, device: str) -> None:
        rng = np.random.default_rng(3)
        self.x, *self.weights = (upload(rng.standard_normal(shape).astype(np.float32), device) for shape in [(32,), *[(32, 32)] * 3])
        self.position = UOp.variable("position", -3, 100)

        def layer(x: Tensor, w: Tensor, position: UOp) -> Tensor:
            result = (w @ x).tanh().contiguous() + position
            return Tensor(x.uop.after(x.uop.store(result.uop))).realize()

        self.jit = TinyJit(layer)
        self.jit.cnt = 1
        self.jit(self.x, self.weights[0], self.position.bind(1))
        self.runner: NativeGraphRunner = graph_cache[self.jit.captured.linear.src[0].src[0]]

    def compose(self) -> Composite:
        composite = compose([(self.jit, [self.x, w]) for w in self.weights])
        assert composite is not None
        return composite

    def check(self, run: Callable[[], None], position: int) -> None:
        """`run` makes of x what three layers at this position make of it."""
        x = np.random.default_rng(position % 7).standard_normal(32).astype(np.float32)
        write(self.x, x)
        run()
        for w in self.weights:
            x = np.tanh(w.numpy() @ x) + position
        np.testing.assert_allclose(read(self.x, np.empty(32, np.float32)), x, atol=1e-4)


def test_a_replay_takes_other_variables_and_other_inputs_in_one_native_call(device: str, entry: None, native_calls: list[int]) -> None:
    function, position = window_sums()
    jit = TinyJit(function)
    first, second = numbers(device, *range(8)), numbers(device, *range(10, 18))
    for _ in range(2):
        jit(first, position.bind(0))
    native_calls.clear()
    for x, at, offset in ((first, 3, 0), (second, 5, 10), (first, 6, 0), (second, 0, 10)):
        expected = [2 * (offset + at) + at, 2 * (offset + at + 1) + at]
        assert jit(x, position.bind(at)).tolist() == expected
    assert len(native_calls) == 4 and min(native_calls) >= 2


def test_a_captured_layer_serves_three_in_one_native_call(device: str, entry: None, native_calls: list[int]) -> None:
    layers = Layers(device)
    composite, kernels = layers.compose(), len(layers.runner.launches)
    native_calls.clear()
    for position in (0, 7, 100, -3):
        layers.check(lambda position=position: composite({"position": position}), position)  # type: ignore[misc]
    assert native_calls == [3 * kernels] * 4


def test_the_values_of_the_next_replay_may_be_foretold_rightly_or_wrongly(device: str, entry: None) -> None:
    layers = Layers(device)
    composite = layers.compose()
    for position, then in ((3, 4), (4, 5), (4, 7), (9, -3), (-3, -2)):
        layers.check(lambda p=position, t=then: composite({"position": p}, then={"position": t}), position)  # type: ignore[misc]


def test_a_missing_variable_is_named(device: str) -> None:
    layers = Layers(device)
    with pytest.raises(RuntimeError, match="unbound Variable 'position'"):
        layers.jit.captured([layers.x.uop.base, layers.weights[0].uop.base], {})
    with pytest.raises(KeyError, match="position"):
        layers.compose()({})


def test_graphs_of_two_devices_are_not_composed(device: str) -> None:
    layers, x = Layers(device), upload(np.zeros(4, np.float32), "CPU")
    other = TinyJit(lambda x: (x + 1).realize())
    for _ in range(2):
        other(x)
    assert compose([(layers.jit, [layers.x, layers.weights[0]]), (other, [x])]) is None


def test_two_threads_replay_one_graph_with_inputs_of_their_own(device: str) -> None:
    layers, failures = Layers(device), []
    w = layers.weights[0]
    inputs = [numbers(device, *[0.0] * 32) for _ in range(2)]

    def use(index: int) -> None:
        x = inputs[index]
        for position in range(100):
            start = np.full(32, index + position / 100, np.float32)
            write(x, start)
            layers.runner((x.uop.base, w.uop.base), {"position": position + index})
            expected = np.tanh(matrix @ start) + position + index
            if not np.allclose(read(x, np.empty(32, np.float32)), expected, atol=1e-4):
                failures.append((index, position))

    matrix = w.numpy()
    threads = [threading.Thread(target=use, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_composite_tells_where_its_time_goes(device: str) -> None:
    layers = Layers(device)
    composite = layers.compose()
    layers.check(lambda: composite({"position": 1}), 1)
    times = composite.profile({"position": 5}, replays=3)
    launches = layers.runner.launches * 3
    assert [(time.name, time.tasks, time.nbytes) for time in times] == [(one.name, one.groups, one.nbytes) for one in launches]
    assert all(len(time.samples) == 3 and time.ns >= 0 for time in times) and sum(time.ns for time in times) > 0
    assert times[0].name[:40] in table(times)
    layers.check(lambda: composite({"position": 2}), 2)


def test_a_single_graph_is_replayed_directly_and_profiled(device: str) -> None:
    function, position = window_sums()
    jit, x = TinyJit(function), numbers(device, *range(8))
    for _ in range(2):
        jit(x, position.bind(1))
    replay = fast_replay(jit, [x])
    assert replay is not None
    for at in (4, 0):
        replay({"position": at})
        assert replay.result.tolist() == [3 * at, 3 * at + 2]
    assert len(replay.profile({"position": 2}, replays=2)) == len(replay.runner.launches)


def test_a_copy_stays_outside_of_the_graph_and_says_so(
    device: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DEBUG, "value", 1)
    monkeypatch.setattr("ext.tinygrad.graph.profile._said", set())  # each is said once

    @TinyJit
    def there_and_back(x: Tensor) -> Tensor:
        there = (x + 1).contiguous().realize().to("CPU").contiguous().realize()
        return ((there * 2).realize().to(device) - 3).realize()

    for i in range(3):
        assert there_and_back(numbers(device, i, 5)).tolist() == [2 * i - 1, 9]
    runners = [type(graph_cache.get(call.src[0])) for call in there_and_back.captured.linear.src]
    assert type(None) in runners
    assert "copy runs outside of the graph: it is a copy, no kernel" in capsys.readouterr().err


def test_what_opencl_refuses_is_an_error() -> None:
    from array import array

    from ext.tinygrad.backend import describe_device
    from ext.tinygrad.toolchain import BackendError

    try:
        describe_device("CL")
    except BackendError as error:
        pytest.skip(str(error))
    from ext.tinygrad.graph.driver_runner import DriverLaunch
    from ext.tinygrad.graph.opencl_queue import OpenCLQueue

    opened = Device["CL"]
    program = opened.runtime(TinyELF(b"__kernel void nothing(__global int* a) { a[0] = 1; }", "nothing", opened.renderer.target, ()))
    queue, values = OpenCLQueue(opened, [DriverLaunch(program, "nothing", (1,), (1,), [], [])]), array("q", [0])
    with pytest.raises(RuntimeError, match="CL_INVALID_KERNEL_ARGS"):
        queue(values.buffer_info()[0])
