"""NVRTC as tinygrad calls it, for machine code of the card; a kernel that it refuses is one sentence."""

import os
import sys
from pathlib import Path

from tinygrad.device import CompileError
from tinygrad.helpers import DEBUG
from tinygrad.runtime.support.compiler_cuda import NVRTCCompiler

from ext.tinygrad import nvrtc
from ext.tinygrad.cuda import compile_target, supported_architectures
from ext.tinygrad.toolchain import BackendError


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
