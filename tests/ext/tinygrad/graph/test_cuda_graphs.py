"""A captured pass as one CUDA graph: which nodes are set at a replay, what the driver refuses, what is given back.

On the emulated driver of tests/reference/cuda_emulator."""

import ctypes
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from tinygrad import Device, Tensor, TinyJit, UOp, dtypes
from tinygrad.engine.jit import create_graph_call
from tinygrad.engine.realize import graph_cache

from ext.tinygrad.buffers import read, upload, write
from ext.tinygrad.cuda_errors import CUDAError, OutOfCUDAMemory
from ext.tinygrad.graph import install_on
from ext.tinygrad.graph.compose import Composite, compose
from ext.tinygrad.kernels.gpu.gpu_source import launch

DEVICE = "CUDA"
INVALID_VALUE, OUT_OF_MEMORY = 1, 2  # CUresult
LAYERS = 3


@pytest.fixture(autouse=True)
def _graphs(cuda_emulator: Any) -> None:
    assert install_on(DEVICE)


class Driver:
    """The driver's functions as a queue calls them: counted, and refusing where `refuses` says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        from ext.tinygrad.graph import cuda_queue

        self.calls: dict[str, int] = {}
        self.refuses: dict[str, int] = {}  # name -> CUresult of its next call
        self._kept: list[Any] = []
        address = cuda_queue._address
        kinds = {"cuGraphExecKernelNodeSetParams": cuda_queue.SetParams, "cuGraphLaunch": cuda_queue.LaunchGraph}

        def counted(name: str) -> int:
            if name not in kinds:
                return address(name)
            function = kinds[name](address(name))

            def call(*arguments: int) -> int:
                self.calls[name] = self.calls.get(name, 0) + 1
                return self.refuses.pop(name, 0) or int(function(*arguments))

            self._kept.append(kinds[name](call))
            place = ctypes.cast(self._kept[-1], ctypes.c_void_p).value
            assert place
            return place

        monkeypatch.setattr(cuda_queue, "_address", counted)

    def during(self, run: Callable[[], Any]) -> tuple[int, int]:
        """How many nodes a call sets, and how many graphs it launches."""
        self.calls.clear()
        run()
        return self.calls.get("cuGraphExecKernelNodeSetParams", 0), self.calls.get("cuGraphLaunch", 0)


@pytest.fixture(params=["C", "Python"])
def driver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    from ext.tinygrad.graph import cuda_queue

    if request.param == "Python":
        monkeypatch.setattr(cuda_queue, "entry", lambda: None)
    yield Driver(monkeypatch)


STEP = """
extern "C" __global__ void step(float *out, const float *in, const float *w, int start_pos) {
  const int i = blockIdx.x * 16 + threadIdx.x;
  out[i] = in[i] * w[i] + start_pos;
}
"""
DOUBLE = """
extern "C" __global__ void twice(float *out, const float *in) {
  const int i = blockIdx.x * 16 + threadIdx.x;
  out[i] = 2 * in[i];
}
"""


class Layers:
    """x = 2 (x w + position) for each layer, in two kernels of which one takes the position."""

    def __init__(self) -> None:
        rng = np.random.default_rng(5)
        self.x = upload(np.zeros(64, np.float32), DEVICE)
        self.weights = [upload(rng.standard_normal(64).astype(np.float32), DEVICE) for _ in range(LAYERS)]
        position = UOp.variable("start_pos", -10, 1000)

        def layer(x: Tensor, w: Tensor, position: UOp) -> Tensor:
            inner = Tensor.empty(64, dtype=dtypes.float32, device=DEVICE)
            (inner,) = launch(STEP, "step", [4], 16, [inner], [x, w], position)
            return launch(DOUBLE, "twice", [4], 16, [x], [inner])[0].realize()

        self.jit = TinyJit(layer)
        self.jit.cnt = 1
        self.jit(self.x, self.weights[0], position.bind(1))
        self.parts = [(self.jit, [self.x, w]) for w in self.weights]

    def composite(self) -> Composite:
        composite = compose(self.parts)
        assert composite is not None
        return composite

    def check(self, position: int, run: Callable[[], Any]) -> None:
        start = np.random.default_rng(position + 20).standard_normal(64).astype(np.float32)
        write(self.x, start)
        run()
        for w in self.weights:
            start = 2 * (start * w.numpy() + position)
        np.testing.assert_allclose(read(self.x, np.empty(64, np.float32)), start, rtol=1e-5)


def test_only_kernels_whose_arguments_change_are_set(driver: Driver) -> None:
    layers = Layers()
    composite = layers.composite()
    assert driver.during(lambda: layers.check(-7, lambda: composite({"start_pos": -7}))) == (LAYERS, 1)
    assert driver.during(lambda: layers.check(-7, lambda: composite({"start_pos": -7}))) == (0, 1)
    assert driver.during(lambda: layers.check(8, lambda: composite({"start_pos": 8}))) == (LAYERS, 1)


def test_foretold_values_are_set_before_the_next_replay_and_wrong_ones_again(driver: Driver) -> None:
    layers = Layers()
    composite = layers.composite()
    layers.check(3, lambda: composite({"start_pos": 3}, then={"start_pos": 4}))
    assert driver.during(lambda: layers.check(4, lambda: composite({"start_pos": 4}))) == (0, 1)
    layers.check(5, lambda: composite({"start_pos": 5}, then={"start_pos": 6}))
    assert driver.during(lambda: layers.check(9, lambda: composite({"start_pos": 9}))) == (LAYERS, 1)


def test_a_node_that_the_driver_did_not_set_is_set_by_the_next_replay(driver: Driver) -> None:
    layers = Layers()
    composite = layers.composite()
    layers.check(3, lambda: composite({"start_pos": 3}))
    driver.refuses["cuGraphExecKernelNodeSetParams"] = INVALID_VALUE
    with pytest.raises(CUDAError, match="CUDA error 1"):
        composite({"start_pos": 5})
    assert driver.during(lambda: layers.check(5, lambda: composite({"start_pos": 5}))) == (LAYERS, 1)


def test_another_input_is_set_in_the_kernels_that_take_it(driver: Driver) -> None:
    layers = Layers()
    runner = graph_cache[layers.jit.captured.linear.src[0].src[0]]
    other = upload(np.full(64, 3, np.float32), DEVICE)
    x, w = layers.x.uop.base, layers.weights[0].uop.base
    runner((x, w), {"start_pos": 2})
    assert driver.during(lambda: runner((x, other.uop.base), {"start_pos": 2})) == (1, 1), "one kernel takes the weights"
    assert driver.during(lambda: runner((other.uop.base, w), {"start_pos": 2})) == (2, 1), "both kernels take x"
    np.testing.assert_allclose(read(other, np.empty(64, np.float32)), 2 * (3 * layers.weights[0].numpy() + 2), rtol=1e-6)


def test_a_view_of_an_input_moves_with_the_input() -> None:
    """tinygrad copies a slice before it hands it to a kernel, so such a call is made by hand here."""
    double = TinyJit(lambda x: launch(DOUBLE, "twice", [4], 16, [Tensor.empty(64, device=DEVICE)], [x])[0].realize())
    for _ in range(3):
        out = double(upload(np.zeros(64, np.float32), DEVICE))
    runner = graph_cache[double.captured.linear.src[0].src[0]]
    (call,) = runner.linear.src
    upper_half = UOp.param(0, dtypes.float32, (128,), DEVICE).shrink(((64, 128),))
    first, second = (upload(np.arange(n, n + 128, dtype=np.float32), DEVICE) for n in (0, 500))
    viewing = type(runner)(create_graph_call([call.replace(src=(*call.src[:2], upper_half))]).src[0], (first.uop.base,))
    for x in (first, second, first):
        viewing((x.uop.base,), {})
        np.testing.assert_array_equal(out.numpy(), 2 * x.numpy()[64:])


@pytest.mark.parametrize("order", [1, 7, 8])
def test_kernels_run_in_the_order_of_their_capture(order: int, cuda_emulator: Any) -> None:
    with cuda_emulator.set(order=order):
        layers = Layers()
        composite = layers.composite()
        for position in (4, -2):
            layers.check(position, lambda position=position: composite({"start_pos": position}))  # type: ignore[misc]


def test_no_room_for_a_graph_is_a_sentence_and_kept_buffers_are_given_up_first(monkeypatch: pytest.MonkeyPatch) -> None:
    from tinygrad.runtime.autogen import cuda as cu

    layers, allocator = Layers(), Device[DEVICE].allocator
    instantiate = cu.cuGraphInstantiate_v2

    def only_without_kept_buffers(*arguments: Any) -> int:
        return OUT_OF_MEMORY if any(allocator.cache.values()) else int(instantiate(*arguments))

    upload(np.zeros(1000, np.float32), DEVICE)  # is freed at once, and kept by tinygrad
    assert any(allocator.cache.values())
    monkeypatch.setattr(cu, "cuGraphInstantiate_v2", only_without_kept_buffers)
    composite = layers.composite()
    layers.check(3, lambda: composite({"start_pos": 3}))
    monkeypatch.setattr(cu, "cuGraphInstantiate_v2", lambda *_: OUT_OF_MEMORY)
    with pytest.raises(OutOfCUDAMemory, match=r"CUDA .* refuses memory: .* available; lower --max-context"):
        layers.composite()


def test_a_launch_that_the_driver_refuses_is_a_sentence(driver: Driver) -> None:
    layers = Layers()
    composite = layers.composite()
    for status, kind, words in ((OUT_OF_MEMORY, OutOfCUDAMemory, "refuses memory"), (719, CUDAError, "a kernel failed on the card")):
        driver.refuses["cuGraphLaunch"] = status
        with pytest.raises(kind, match=words):
            composite({"start_pos": 5})
    layers.check(6, lambda: composite({"start_pos": 6}))


def test_what_is_dead_is_given_back_to_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    from tinygrad.runtime.autogen import cuda as cu

    made: dict[str, int] = {}

    def count(name: str, function: Any) -> None:
        def counted(*arguments: Any) -> int:
            made[name] = made.get(name, 0) + 1
            return int(function(*arguments))

        monkeypatch.setattr(cu, name, counted)

    for name in ("cuGraphCreate", "cuGraphInstantiate_v2", "cuEventCreate", "cuGraphDestroy", "cuGraphExecDestroy", "cuEventDestroy_v2"):
        count(name, getattr(cu, name))
    layers = Layers()
    composite = layers.composite()
    composite.profile({"start_pos": 1}, replays=2)
    kernels = 2 * LAYERS
    assert made["cuGraphCreate"] == made["cuGraphInstantiate_v2"] == 3, "the captured layer's, the composite's, and one with events"
    assert made["cuGraphDestroy"] == made["cuGraphExecDestroy"] == 1
    assert made["cuEventCreate"] == made["cuEventDestroy_v2"] == kernels + 1
    alive = weakref.ref(composite.graph)
    del composite, layers
    assert alive() is None
    assert made["cuGraphDestroy"] == made["cuGraphExecDestroy"] == 3
