"""Within a process of bench.sanitizers: buffers from the sanitizer's allocator. A plugin of pytest; run by itself it sums up the first N of
16 numbers, and N = 17 is the error that must be found."""

import ctypes
import struct
import sys
from typing import Any

import numpy as np

from ext.tinygrad.toolchain import prepare_environment

prepare_environment()

from tinygrad.runtime import ops_cpu  # noqa: E402
from tinygrad.runtime.support import elf  # noqa: E402
from tinygrad.runtime.support.hcq import HCQBuffer, MMIOInterface  # noqa: E402

from ext.tinygrad.kernels.packed import memory  # noqa: E402

LIBC = ctypes.CDLL(None)  # finds the preloaded sanitizer's first
LIBC.posix_memalign.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t, ctypes.c_size_t]


def watched(nbytes: int) -> np.ndarray:
    """Zeroed memory with poisoned neighbours, never freed."""
    address = ctypes.c_void_p()
    assert LIBC.posix_memalign(ctypes.byref(address), memory.ALIGNMENT, nbytes) == 0 and address.value
    array = np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(address.value))
    array[:] = 0
    return array


class WatchedArena(memory.Arena):
    """As many allocations as are asked for, each by itself."""

    def __init__(self, nbytes: int, huge: bool = True, spread: bool = False):
        pass

    def has_room(self, nbytes: int) -> bool:
        return True

    def take(self, nbytes: int) -> np.ndarray:
        return watched(nbytes)


_tinygrads = ops_cpu.CPUAllocator._alloc


def _alloc(self: Any, size: int, options: Any) -> Any:
    if options.external_ptr is not None:
        return _tinygrads(self, size, options)
    array = watched(size)
    address = array.ctypes.data
    return HCQBuffer(address, size, meta=array, view=MMIOInterface(address, size, fmt="B"), owner=self.dev)


def _load(code: bytes, base: int = 0, link_libs: Any = None) -> bytes:
    """tinygrad's jit_loader for x86_64, by way of jumps where the sanitizer's functions are 2 GB away: its memory lies between."""
    image, _, relocations = elf.elf_loader(code, link_libs=link_libs)
    loaded, jumps = bytearray(image), dict[int, int]()
    for place, target, kind, addend in relocations:
        distance = target + addend - place
        if kind == elf.libc.R_X86_64_PLT32:  # a function from a library, by its address
            distance -= base
            if not -(2**31) <= distance < 2**31:
                if target not in jumps:
                    jumps[target] = len(loaded)
                    loaded += b"\xff\x25\0\0\0\0" + struct.pack("<Q", target)
                distance = jumps[target] + addend - place
        loaded[place : place + 4] = struct.pack("<i", distance)
    assert len(loaded) <= len(code), "tinygrad takes as much memory as the object file has bytes"
    return bytes(loaded)


ops_cpu.CPUAllocator._alloc = _alloc
ops_cpu.jit_loader = _load
memory.Arena = WatchedArena  # type: ignore[misc]


def main() -> None:
    from tinygrad import Tensor

    from ext.tinygrad.buffers import upload
    from ext.tinygrad.kernels.cpu.cpu_source import launch

    n = int(sys.argv[1])
    source = f"void total(float* restrict out, const float* restrict in, long core_id) {{ for (int i = 0; i < {n}; i++) out[0] += in[i]; }}"
    out, given = (upload(np.full(size, 1, np.float32), "CPU") for size in (1, 16))
    (result,) = launch(source, "total", 1, [out], [given])
    assert isinstance(result, Tensor)
    print(result.tolist())


if __name__ == "__main__":
    main()
