"""The memory of this process: how much it has, and giving back what it no longer uses."""

import ctypes
import os
from contextlib import suppress
from pathlib import Path

from ext.tinygrad import garbage


def resident() -> int | None:
    """Bytes of this process in memory; None where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def give_back() -> None:
    """Collect what nothing refers to, and return free pages of the heap to the system."""
    garbage.collect()
    with suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)
