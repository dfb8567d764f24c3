"""Which devices work here, why the others do not, and which one is meant by a name.

Each is tried in a process of its own, so a driver that prints, hangs or crashes does no harm. That process is
`python -m ext.tinygrad.device_selection TARGET`; its last line of output is JSON. `select` is what `--device WORDS` means.
"""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from ext.tinygrad.backend import Backend
from ext.tinygrad.toolchain import ACCELERATORS, BackendError, device_of, missing_drivers

TIMEOUT = 30.0  # seconds; a cold PoCL compiles for two of them
# best first; NV and AMD through the kernel's drivers only, because tinygrad's other ways in take the card away from them
TARGETS = ("METAL", "CUDA", "NVK+NV", "KFD+AMD", "CL", "WEBGPU", "QCOM", "CPU")
KNOWN = {"CPU", "CL", *ACCELERATORS}
ROOT = Path(__file__).resolve().parents[2]


def list_devices() -> list[tuple[str, Backend | str]]:
    """Every device with its description or the reason why it cannot be used, in the order in which they are preferred."""
    missing = missing_drivers()
    children = {target: _start(target) for target in TARGETS if device_of(target) not in missing}
    found: list[tuple[str, Backend | str]] = []
    for target in TARGETS:
        if target in children:
            found += _finish(device_of(target), children[target])
        else:
            found.append((device_of(target), missing[device_of(target)]))
    return found


def _start(target: str) -> "subprocess.Popen[str]":
    environment = {name: value for name, value in os.environ.items() if name not in ("CPU", "GPU", "DEBUG", "DEV")}
    environment["DEV"] = target
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "ext.tinygrad.device_selection", target]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def _finish(device: str, child: "subprocess.Popen[str]") -> list[tuple[str, Backend | str]]:
    try:
        output, _ = child.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        return [(device, f"its driver gave no answer within {TIMEOUT:.0f} s")]
    try:
        answers = json.loads(output.splitlines()[-1])
    except (IndexError, ValueError):
        code = child.returncode
        return [(device, f"its driver ended the process ({signal.Signals(-code).name if code < 0 else f'exit code {code}'})")]
    return [(name, answer if isinstance(answer, str) else _backend(answer)) for name, answer in answers]


def _backend(answer: dict[str, Any]) -> Backend:
    lists = {name: tuple(value) for name, value in answer.items() if isinstance(value, list)}
    return Backend(**{**answer, **lists})


def probe_here(target: str) -> list[tuple[str, Backend | str]]:
    """Try `target` in this process: one entry, or one per device for OpenCL."""
    from ext.tinygrad.backend import BackendError, describe_device

    devices = [device_of(target)]
    if devices == ["CL"]:
        from ext.tinygrad import opencl

        try:
            devices = [f"CL:{index}" if index else "CL" for index in range(len(opencl.devices()))]
        except BackendError as error:
            return [("CL", str(error))]
    found: list[tuple[str, Backend | str]] = []
    for device in devices:
        try:
            found.append((device, describe_device(device)))
        except BackendError as error:
            reason = str(error).removeprefix(f"{device} cannot be used: ").removesuffix("; `townhall devices` lists what can")
            found.append((device, reason))
    return found


def select(words: str | None) -> None:
    """Run on the device that tinygrad calls so (CPU, CL, CL:1, CUDA …), else on the best whose driver names it so.

    Goes before what the environment asks for; to be called before tinygrad is imported.

    Raises BackendError, naming what there is, when no device fits. None leaves the choice to the environment."""
    if words is None:
        return
    device = words.upper() if re.fullmatch(r"[A-Za-z]+(:\d+)?", words) and device_of(words) in KNOWN else _named(words)
    for switch in ("CPU", "GPU"):
        os.environ.pop(switch, None)
    os.environ["DEV"] = device


def _named(words: str) -> str:
    """The first device, best ones first, that has these words in its name or its driver's; every driver is asked, which takes seconds."""
    from ext.tinygrad.backend import Backend

    usable = [answer for _, answer in list_devices() if isinstance(answer, Backend)]
    usable.sort(key=lambda backend: not backend.is_gpu)
    for backend in usable:
        if words.lower() in f"{backend.name} {backend.driver}".lower():
            return backend.device
    there_is = "; ".join(f"{backend.device}: {backend.name}, {backend.driver}" for backend in usable) or "none that works"
    raise BackendError(f"--device {words} fits no device here; there is {there_is}; pass a part of one of these names")


def main() -> None:
    from dataclasses import asdict

    from ext.tinygrad.toolchain import prepare_environment

    prepare_environment()
    answers = [(device, found if isinstance(found, str) else asdict(found)) for device, found in probe_here(sys.argv[1])]
    print("\n" + json.dumps(answers), flush=True)
    os._exit(0)  # a driver that crashes in its own clean-up has answered already


if __name__ == "__main__":
    main()
