"""State of tinygrad 0.14 that all threads share, made each thread's own: one model may load while another answers."""

import threading
from typing import Any


class PerThreadList(threading.local):
    """A list of each thread's own, with what tinygrad does with `realize.capturing`."""

    def __init__(self) -> None:
        self._items: list[Any] = []

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Any:
        return self._items[index]

    def append(self, item: Any) -> None:
        self._items.append(item)

    def clear(self) -> None:
        self._items.clear()


def install() -> None:
    """Once for the process; later calls change nothing.

    - `capturing`, which TinyJit records what: a kernel that another thread runs in the meantime would be recorded instead of run.
    - `ALLOW_DEVICE_USAGE`, off while code is generated: `Device[…]` then fails in every other thread, and in tinygrad's own exit.
      Two threads that generate code at once can also restore each other's value, and leave it off for good. The check is taken back."""
    from tinygrad import device, schedule
    from tinygrad.engine import jit, realize

    device.ALLOW_DEVICE_USAGE = True
    if not isinstance(realize.capturing, PerThreadList):
        realize.capturing = jit.capturing = schedule.capturing = PerThreadList()
