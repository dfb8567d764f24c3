"""What a measurement was made on."""

import os
import platform
import re
from pathlib import Path
from typing import Any

from ext.tinygrad.graph.pool import allowed_cpus, default_threads

FEATURES = ("avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "asimddp", "i8mm")


def describe() -> dict[str, Any]:
    """Processor, memory and system, without personal names."""
    info = _read("/proc/cpuinfo")
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", info, re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+)", _read("/proc/meminfo"), re.MULTILINE)
    return {
        "cpu": cpu_name(),
        "features": [name for name in FEATURES if flags and name in flags[1].split()],
        "cores": default_threads(),
        "cpus": len(allowed_cpus()),
        "memory_bytes": int(memory[1]) * 1024 if memory else 0,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load": load(),
    }


def cpu_name() -> str:
    """The processor's model name as the system tells it."""
    found = re.search(r"^model name\s*:\s*(.*)$", _read("/proc/cpuinfo"), re.MULTILINE)
    return (found[1].strip() if found else "") or platform.processor() or platform.machine()


def load() -> list[float]:
    """The system's load averages: with others at work the figures are no one's."""
    return [round(one, 2) for one in os.getloadavg()] if hasattr(os, "getloadavg") else []


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
