"""Graphs kept in a file against the captures that they were made of."""

import numpy as np
import pytest
from tinygrad import Tensor, TinyJit, UOp

from ext.tinygrad import buffers
from ext.tinygrad.graph import installation, saved_graph
from ext.tinygrad.graph.compose import Composite, compose


@pytest.fixture(autouse=True)
def native_graphs() -> None:
    if not installation.install(2):
        pytest.skip("no native graphs here")


def upload(*shape: int, seed: int = 0) -> Tensor:
    return buffers.upload(np.random.default_rng(seed).standard_normal(shape).astype(np.float32), "CPU")


class Captured:
    """y = (tanh(w @ x) summed up in steps) + position: several kernels with buffers between, a view of an input, a variable, a result."""

    def __init__(self, constant: Tensor | None = None) -> None:
        self.x, self.w = upload(64), upload(64, 64, seed=1)
        position = UOp.variable("position", 0, 100)

        def function(x: Tensor, w: Tensor, position: UOp) -> Tensor:
            inner = (w[:32] @ x).tanh().contiguous()
            outer = (w[32:, :32] @ inner).contiguous() + position
            return (outer if constant is None else outer + constant).contiguous().realize()

        self.known = saved_graph.known_buffers()
        self.jit = TinyJit(function)
        self.jit.cnt = 1
        self.jit(self.x, self.w, position.bind(1))

    def packed(self) -> bytes:
        binaries: list[bytes] = []
        graph = saved_graph.describe(self.jit, [self.x, self.w], self.known, binaries)
        assert graph is not None
        return saved_graph.pack({"y": graph}, binaries)


def expected(x: np.ndarray, w: np.ndarray, position: int) -> np.ndarray:
    return w[32:, :32] @ np.tanh(w[:32] @ x) + position


def test_a_kept_graph_computes_what_its_capture_did_over_other_inputs() -> None:
    graph = saved_graph.unpack(Captured().packed())["y"]
    x, w = upload(64, seed=2), upload(64, 64, seed=3)
    composite = compose([(graph, [x, w])])
    assert isinstance(composite, Composite) and graph.results[0] is not None
    for position in (0, 99):
        composite({"position": position})
        result = buffers.read(graph.results[0], np.empty(32, np.float32))
        np.testing.assert_allclose(result, expected(x.numpy(), w.numpy(), position), atol=1e-4)


def test_a_kept_graph_stands_beside_a_captured_one() -> None:
    captured = Captured()
    graph = saved_graph.unpack(captured.packed())["y"]
    composite = compose([(graph, [captured.x, captured.w]), (captured.jit, [captured.x, captured.w])])
    assert composite is not None and graph.results[0] is not None
    composite({"position": 5})
    kept = buffers.read(graph.results[0], np.empty(32, np.float32))
    np.testing.assert_array_equal(kept, buffers.read(captured.jit.captured.ret, np.empty(32, np.float32)))


def test_a_graph_that_uses_a_buffer_from_elsewhere_is_not_kept() -> None:
    captured = Captured(constant=upload(32, seed=4))
    assert saved_graph.describe(captured.jit, [captured.x, captured.w], captured.known, []) is None


@pytest.mark.parametrize("at", [0, 20, 60, -1])
def test_damage_is_told(at: int) -> None:
    content = bytearray(Captured().packed())
    content[at] ^= 1
    with pytest.raises(ValueError, match="damaged"):
        saved_graph.unpack(bytes(content))


def test_the_name_of_a_graph_follows_the_facts_and_the_settings() -> None:
    from tinygrad.helpers import Context

    assert saved_graph.key("a", 1) == saved_graph.key("a", 1) != saved_graph.key("a", 2)
    with Context(NOOPT=1):
        other = saved_graph.key("a", 1)
    assert other != saved_graph.key("a", 1)
