"""The memory of this machine's devices, for plans of what fits: each card once, whatever drivers lead to it."""

import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from app.models.llama.memory_plan import DeviceRoom
from ext.tinygrad.backend import Backend

CGROUP = Path("/sys/fs/cgroup/memory.max")


def host_memory() -> int:
    """Bytes that processes here may have together: the machine's, or the container's limit; 0 where the system does not tell."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 0
    try:
        return min(memory, int(CGROUP.read_text()))
    except (OSError, ValueError):  # no limit, which is spelled "max"
        return memory


def device_rooms(found: Iterable[tuple[str, Backend | str]], reserve: int | None = None) -> list[DeviceRoom]:
    """Of `list_devices`' answer, in its order of preference; the processor comes last.

    A card that several drivers lead to counts once, by the driver that shows most of its kind; drivers on the processor are left out.
    """
    cards: dict[str, dict[str, list[Backend]]] = defaultdict(lambda: defaultdict(list))
    host = None
    for _, answer in found:
        if isinstance(answer, Backend):
            if answer.device == "CPU":
                host = answer
            elif answer.kind != "cpu" and answer.memory:
                cards[answer.name][answer.device.split(":")[0]].append(answer)
    shown = [max(drivers.values(), key=len) for drivers in cards.values()]  # of equally many, the preferred driver's
    rooms = [DeviceRoom.of(one.device, one.memory, reserve, about=one.describe()) for card in shown for one in card]
    memory = host_memory()
    return rooms + ([DeviceRoom.of("CPU", memory, reserve, True, host.describe() if host else "")] if memory else [])
