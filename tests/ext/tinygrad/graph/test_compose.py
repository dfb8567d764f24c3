"""Composed graphs against the same captures replayed one by one by TinyJit."""

import numpy as np
import pytest
from tinygrad import Tensor, TinyJit, UOp

from ext.tinygrad import buffers
from ext.tinygrad.graph import installation
from ext.tinygrad.graph.compose import Composite, compose


@pytest.fixture(autouse=True)
def native_graphs() -> None:
    if not installation.install(2):
        pytest.skip("no native graphs here")


def upload(*shape: int, seed: int = 0) -> Tensor:
    return buffers.upload(np.random.default_rng(seed).standard_normal(shape).astype(np.float32), "CPU")


class Layers:
    """x = tanh(w @ x) + position, three times, with one capture for all layers."""

    def __init__(self) -> None:
        self.x, self.weights = upload(64), [upload(64, 64, seed=i) for i in (1, 2, 3)]
        self.position = UOp.variable("position", 0, 100)

        def layer(x: Tensor, w: Tensor, position: UOp) -> Tensor:
            result = (w @ x).tanh().contiguous() + position
            return Tensor(x.uop.after(x.uop.store(result.uop))).realize()

        self.jit = TinyJit(layer)
        self.jit.cnt = 1
        self.jit(self.x, self.weights[0], self.position.bind(1))

    def expected(self, x: np.ndarray, position: int) -> np.ndarray:
        for w in self.weights:
            x = np.tanh(w.numpy() @ x) + position
        return x


def test_one_captured_layer_serves_three_in_one_native_call() -> None:
    layers = Layers()
    composite = compose([(layers.jit, [layers.x, w]) for w in layers.weights])
    assert isinstance(composite, Composite)
    for position in (0, 7, 100):
        start = np.random.default_rng(position).standard_normal(64).astype(np.float32)
        buffers.write(layers.x, start)
        composite({"position": position})
        np.testing.assert_allclose(buffers.read(layers.x, np.empty(64, np.float32)), layers.expected(start, position), atol=1e-4)


def test_a_variable_that_is_not_given_is_named() -> None:
    layers = Layers()
    composite = compose([(layers.jit, [layers.x, w]) for w in layers.weights])
    assert composite is not None
    with pytest.raises(KeyError, match="position"):
        composite({})


def test_what_is_not_captured_is_not_composed() -> None:
    assert compose([(TinyJit(lambda x: x.realize()), [upload(4)])]) is None


def test_a_composite_tells_where_its_time_goes() -> None:
    layers = Layers()
    composite = compose([(layers.jit, [layers.x, w]) for w in layers.weights])
    assert composite is not None
    times = composite.profile({"position": 3}, replays=3)
    assert len(times) % 3 == 0 and all(len(time.samples) == 3 and time.ns >= 0 for time in times)
