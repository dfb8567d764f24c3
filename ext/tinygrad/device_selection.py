"""`--device WORDS`: the device that tinygrad calls so (CPU, CL, CL:1, CUDA …), or the best one whose driver names it so."""

import os
import re

from ext.tinygrad.toolchain import ACCELERATORS, BackendError, device_of

KNOWN = {"CPU", "CL", *ACCELERATORS}


def select(words: str | None) -> None:
    """Have everything from here on run there, whatever the environment asks for; to be called before tinygrad is imported.

    Raises BackendError, naming what there is, when no device fits. None leaves the choice to the environment."""
    if words is None:
        return
    device = words.upper() if re.fullmatch(r"[A-Za-z]+(:\d+)?", words) and device_of(words) in KNOWN else _named(words)
    for switch in ("CPU", "GPU"):
        os.environ.pop(switch, None)
    os.environ["DEV"] = device


def _named(words: str) -> str:
    """The first device, best ones first, that has these words in its name or its driver's; every driver is asked, which takes seconds."""
    from ext.tinygrad import probe
    from ext.tinygrad.backend import Backend

    usable = [answer for _, answer in probe.list_devices() if isinstance(answer, Backend)]
    usable.sort(key=lambda backend: not backend.is_gpu)
    for backend in usable:
        if words.lower() in f"{backend.name} {backend.driver}".lower():
            return backend.device
    there_is = "; ".join(f"{backend.device}: {backend.name}, {backend.driver}" for backend in usable) or "none that works"
    raise BackendError(f"--device {words} fits no device here; there is {there_is}; pass a part of one of these names")
