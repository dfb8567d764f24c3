"""Captured OpenCL graphs: one native call enqueues them, with the variables and buffers of the moment, and says what the driver refuses."""

from collections.abc import Callable

import numpy as np
import pytest
from tinygrad import Device, Tensor, TinyJit, UOp

from ext.tinygrad.buffers import read, upload, write
from ext.tinygrad.graph import install_on
from ext.tinygrad.graph.compose import compose

DEVICE = "CL"


@pytest.fixture(autouse=True, scope="module")
def _graphs() -> None:
    from ext.tinygrad.backend import describe_device
    from ext.tinygrad.toolchain import BackendError

    try:
        describe_device(DEVICE)
    except BackendError as error:
        pytest.skip(str(error))
    install_on(DEVICE)


@pytest.fixture
def native_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The kernels of each native call, as they are made."""
    from ext.tinygrad.graph import opencl_queue

    calls: list[int] = []
    plain = opencl_queue.Queue.__call__

    def counted(queue: opencl_queue.Queue, values: int) -> None:
        calls.append(len(queue.launches))
        plain(queue, values)

    monkeypatch.setattr(opencl_queue.Queue, "__call__", counted)
    return calls


@pytest.fixture(params=["C", "Python"])
def entry(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop that enqueues: compiled, and as it runs where there is no clang."""
    from ext.tinygrad.graph import opencl_queue

    if request.param == "Python":
        monkeypatch.setattr(opencl_queue, "entry", lambda: None)
    else:
        assert opencl_queue.entry() is not None


def numbers(*values: float) -> Tensor:
    return upload(np.array(values, np.float32), DEVICE)


def window_sums() -> tuple[Callable[..., Tensor], UOp]:
    """Several kernels whose work depends on a variable."""
    position = UOp.variable("position", 0, 6)

    def function(x: Tensor, at: UOp) -> Tensor:
        doubled = (x[at : at + 2] * 2).contiguous()
        return (doubled + at).contiguous().realize()

    return function, position


def test_a_replay_takes_other_variables_and_other_inputs_in_one_native_call(entry: None, native_calls: list[int]) -> None:
    function, position = window_sums()
    jit = TinyJit(function)
    first, second = numbers(*range(8)), numbers(*range(10, 18))
    for _ in range(2):
        jit(first, position.bind(0))
    native_calls.clear()
    for x, at, offset in ((first, 3, 0), (second, 5, 10), (first, 6, 0), (second, 0, 10)):
        expected = [2 * (offset + at) + at, 2 * (offset + at + 1) + at]
        assert jit(x, position.bind(at)).tolist() == expected
    assert len(native_calls) == 4 and min(native_calls) >= 2


def test_a_captured_layer_serves_three_in_one_native_call(entry: None, native_calls: list[int]) -> None:
    x = numbers(1, 2)
    weights = [numbers(2, 2), numbers(3, 3), numbers(5, 7)]

    def layer(x: Tensor, weight: Tensor) -> Tensor:
        return Tensor(x.uop.after(x.uop.store((x * weight + 1).contiguous().uop))).realize()

    jit = TinyJit(layer)
    jit.cnt = 1
    jit(x, weights[0])
    composite = compose([(jit, [x, weight]) for weight in weights])
    assert composite is not None
    for start in ([1, 2], [4, 0]):
        write(x, np.array(start, np.float32))
        native_calls.clear()
        composite({})
        expected = np.array(start, np.float32)
        for weight in ([2, 2], [3, 3], [5, 7]):
            expected = expected * np.array(weight, np.float32) + 1
        np.testing.assert_array_equal(read(x, np.empty(2, np.float32)), expected)
        assert len(native_calls) == 1


def test_a_missing_variable_is_named() -> None:
    function, position = window_sums()
    jit = TinyJit(function)
    x = numbers(*range(8))
    for _ in range(2):
        jit(x, position.bind(1))
    with pytest.raises(RuntimeError, match="unbound Variable 'position'"):
        jit.captured([x.uop.base], {})


def test_what_the_driver_refuses_is_an_error() -> None:
    from array import array

    from tinygrad.device import TinyELF

    from ext.tinygrad.graph.driver_runner import Launch
    from ext.tinygrad.graph.opencl_queue import Queue

    opened = Device[DEVICE]
    program = opened.runtime(TinyELF(b"__kernel void nothing(__global int* a) { a[0] = 1; }", "nothing", opened.renderer.target, ()))
    queue, values = Queue(opened, [Launch(program, "nothing", (1,), (1,), [], [])]), array("q", [0])
    with pytest.raises(RuntimeError, match="CL_INVALID_KERNEL_ARGS"):
        queue(values.buffer_info()[0])
