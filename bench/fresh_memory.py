"""Free memory made ready before a measurement: python -m bench.fresh_memory BYTES

A virtual machine may give what is free back to its host within seconds, and taking it anew then costs more than what is to be measured.
"""

import mmap
import subprocess
import sys
from pathlib import Path

from ext.tinygrad.kernels.packed import memory

MEMINFO = Path("/proc/meminfo")


def claim(nbytes: int) -> None:
    """Have that much of the free memory ready; what holds files stays."""
    lines = MEMINFO.read_text().splitlines() if MEMINFO.exists() else []
    free = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemFree")), 0)
    # a process of its own gives all of it back at its end
    subprocess.run([sys.executable, "-m", "bench.fresh_memory", str(min(nbytes, free * 9 // 10))], check=True)


if __name__ == "__main__":
    most = int(sys.argv[1])
    memory.Arena(most).take(most)[:: mmap.PAGESIZE] = 1
