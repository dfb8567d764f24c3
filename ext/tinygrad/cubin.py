"""NVRTC as tinygrad calls it, for machine code of the card; a kernel that it refuses is one sentence."""

import ctypes
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tinygrad.device import CompileError
from tinygrad.helpers import DEBUG
from tinygrad.runtime.autogen import nvrtc as rtc
from tinygrad.runtime.support.compiler_cuda import NVRTCCompiler

from ext.tinygrad import nvrtc
from ext.tinygrad.toolchain import BackendError


def compile_target(arch: str, supported: Sequence[int]) -> tuple[str, bool] | None:
    """What NVRTC is asked for on a card: an architecture, and whether as PTX, which the driver then translates.

    Machine code of an older card of the same generation runs as well; for a newer generation than NVRTC knows there is PTX only.
    None where NVRTC knows newer cards only."""
    card = int(arch.removeprefix("sm_"))
    known = [number for number in supported if number <= card]
    if not supported or card in known:
        return arch, False
    if not known:
        return None
    newest = max(known)
    return (f"sm_{newest}", False) if newest // 10 == card // 10 else (f"compute_{newest}", True)


def supported_architectures() -> list[int]:
    """The compute capabilities times ten that NVRTC compiles for; none where it does not tell (before CUDA 11.2)."""
    count = ctypes.c_int32()
    try:
        if rtc.nvrtcGetNumSupportedArchs(ctypes.byref(count)) != 0:
            return []
        numbers = (ctypes.c_int32 * count.value)()
        return sorted(numbers) if rtc.nvrtcGetSupportedArchs(numbers) == 0 else []
    except AttributeError:
        return []


class KernelRefused(BackendError, CompileError):
    """NVRTC cannot compile a kernel."""


class CubinCompiler(NVRTCCompiler):
    """Compiles CUDA C for `arch` ("sm_90")."""

    def __init__(self, arch: str):
        target, ptx = compile_target(arch, supported_architectures()) or (arch, False)
        super().__init__(target, ptx=ptx, cache_key="townhall_ptx" if ptx else "townhall_cubin")
        library = Path(os.environ.get("NVRTC_PATH", ""))
        folders = nvrtc.include_folders(library) if library.is_file() else []
        self.compile_options[1:1] = [f"-I{folder}" for folder in folders]  # before the folders that tinygrad thinks of

    def compile(self, src: str) -> bytes:
        try:
            return bytes(super().compile(src))
        except CompileError as error:
            if DEBUG >= 2:
                print(f"{src}\n{error}", file=sys.stderr)
            raise KernelRefused(self._refusal(str(error))) from error

    def _refusal(self, log: str) -> str:
        lines = [line.strip() for line in log.splitlines() if line.strip()]
        fault = next((line for line in lines[1:] if "error" in line), lines[0] if lines else "no log")
        if "cuda_fp16.h" in fault:
            return (
                f"NVRTC finds no header cuda_fp16.h, which a CUDA toolkit or the wheel nvidia-cuda-runtime-cu12 has: install it with "
                f"`{nvrtc.install_command(nvrtc.HEADERS)}`, or run with CPU=1"
            )
        fault = fault if len(fault) <= 160 else fault[:159] + "…"
        return f"CUDA: NVRTC cannot compile a kernel for {self.arch} ({fault}); DEBUG=2 shows its log, CPU=1 does without the card"
