"""A model loads in one thread while another thread computes: neither meets the other's state in tinygrad."""

import threading
from collections.abc import Callable

import numpy as np
from tinygrad import Device, Tensor, TinyJit
from tinygrad.helpers import Context

from ext.tinygrad import thread_state


def while_another_is_inside(enter: Callable[[threading.Event, threading.Event], None], check: Callable[[], None]) -> None:
    """check() while a thread is between its two events."""
    inside, done = threading.Event(), threading.Event()
    thread = threading.Thread(target=enter, args=(inside, done))
    thread.start()
    try:
        assert inside.wait(60)
        check()
    finally:
        done.set()
        thread.join()


def test_a_device_is_used_while_another_thread_generates_code() -> None:
    thread_state.install()

    def generate(inside: threading.Event, done: threading.Event) -> None:
        with Context(ALLOW_DEVICE_USAGE=0):  # as tinygrad does around its code generation
            inside.set()
            done.wait()

    while_another_is_inside(generate, lambda: Device["CPU"].synchronize())


def test_a_kernel_runs_while_another_thread_captures_and_is_not_captured() -> None:
    thread_state.install()
    captured: list[np.ndarray] = []

    def capture(inside: threading.Event, done: threading.Event) -> None:
        calls = 0

        @TinyJit
        def double(x: Tensor) -> Tensor:
            nonlocal calls
            if (calls := calls + 1) == 2:  # the call that is captured
                inside.set()
                done.wait()
            return (x * 2).realize()

        captured.extend(double(Tensor([float(i), 1.0], device="CPU").realize()).numpy() for i in range(4))

    def check() -> None:
        assert (Tensor([1.0, 2.0, 3.0], device="CPU") + 1).tolist() == [2.0, 3.0, 4.0]

    while_another_is_inside(capture, check)
    np.testing.assert_array_equal(captured, [[2.0 * i, 2.0] for i in range(4)])


def test_installing_twice_keeps_the_lists() -> None:
    from tinygrad.engine import jit, realize

    thread_state.install()
    before = realize.capturing
    thread_state.install()
    assert realize.capturing is before is jit.capturing and not realize.capturing
