"""What a GPU can do, and the sizes of work-groups that suit it: a table by kind of device, cut to what the device can do."""

import ctypes
from dataclasses import dataclass
from typing import Any, Literal

PLAIN_ITEMS = {"gpu": 128, "accelerator": 128, "cpu": 32}  # of a work-group that goes over a row
DECODE_ITEMS = {"gpu": 256, "accelerator": 256, "cpu": 64}  # of a work-group of a product of one token
LOADS = 4  # 16-byte loads that an item of such a product has in flight
MOST_SPLITS = 32
SPLIT_POSITIONS = 64  # of the window that a split should have at least
STATIC_LOCAL_BYTES = 48 << 10  # CUDA has no more without a launch attribute
MATRIX_PTX, SHUFFLE_PTX = 75, 70  # compute capabilities times ten from which our inline PTX has these instructions


@dataclass(frozen=True)
class DecodeShape:
    """A work-group of a product of one token: `slots` groups of 16 rows, `splits` warps of 32 items to each, `loads` in flight."""

    slots: int
    splits: int
    loads: int

    @property
    def items(self) -> int:
        return 32 * self.slots * self.splits


@dataclass(frozen=True)
class Tuning:
    """What suits one device. Any numbers give the same results, but for the order of sums."""

    kind: Literal["cpu", "gpu", "accelerator"]
    units: int  # compute units
    most_items: int  # of a work-group
    local_bytes: int
    dialect: Literal["opencl", "cuda"] = "opencl"
    ptx: int = 0  # compute capability times ten where the compiler takes inline PTX, else 0

    @classmethod
    def of(cls, device: str) -> "Tuning":
        """Of an opened tinygrad device, "CL…" or "CUDA…", by its driver's word."""
        from tinygrad.device import Device

        opened = Device[device]
        if device.split(":")[0] == "CUDA":
            return cls("gpu", _multiprocessors(opened), 1024, STATIC_LOCAL_BYTES, "cuda", int(opened.arch.removeprefix("sm_")))
        from ext.tinygrad.opencl import info_of

        info = info_of(opened)
        ptx = _compute_capability(opened) if "cl_nv_device_attribute_query" in info.extensions else 0
        return cls(info.kind, info.units, info.most_items, min(info.local_bytes, STATIC_LOCAL_BYTES), ptx=ptx)

    @property
    def has_shuffle(self) -> bool:
        """Can 32 neighbouring items exchange registers?"""
        return self.ptx >= SHUFFLE_PTX

    @property
    def has_matrix(self) -> bool:
        """Is there a matrix instruction?"""
        return self.ptx >= MATRIX_PTX

    @property
    def plain_items(self) -> int:
        return min(PLAIN_ITEMS[self.kind], self.most_items)

    @staticmethod
    def most_warps(cols: int, floats: bool) -> int:
        """That can share a row: a warp takes two blocks of 32 columns at a time, or 16 columns of float weights."""
        return max(1, cols // (16 if floats else 64))

    def decode_shape(self, cols: int, slots: int, floats: bool) -> DecodeShape:
        """For a product with `slots` groups of rows that a tile needs at least; none of its warps is left without columns."""
        most = self.most_warps(cols, floats)
        wanted = min(DECODE_ITEMS[self.kind], self.most_items) // (32 * slots)
        splits = 1 << (max(1, min(wanted, most)).bit_length() - 1)
        return DecodeShape(slots, splits, max(1, min(LOADS, most // splits)))

    def matrix_tile(self, rows: int, tokens: int) -> tuple[int, int]:
        """(groups of 16 rows, tokens) of a tile of a product on the matrix instruction: the largest that leaves no unit without work."""
        widest = next((n for n in (32, 64) if tokens <= n), 128)
        tiles = [(8, widest), (4, widest), *([(4, 64)] if widest == 128 else [])]
        busy = (tile for tile in tiles if -(-rows // (16 * tile[0])) * -(-tokens // tile[1]) >= 0.9 * self.units)
        return next(busy, tiles[-1])

    def attend_items(self, head_dim: int) -> int:
        """Whole positions, of head_dim / 4 items each."""
        width = head_dim // 4
        return width * max(1, min(128, self.most_items) // width)

    def attend_splits(self, rows: int, groups: int) -> int:
        """Enough work-groups for every compute unit, where the window is long enough to be split."""
        return max(1, min(-(-2 * self.units // groups), rows // SPLIT_POSITIONS, MOST_SPLITS))

    def attend_chunk(self, head_dim: int) -> int:
        """Positions of a prefill's attention tile: keys and queries share the local memory."""
        rows = self.local_bytes // 4 // (head_dim + 1)  # of floats that fit
        return next((chunk for chunk in (32, 16, 8) if 16 + chunk + 4 <= rows), 8)


def _multiprocessors(opened: Any) -> int:
    from tinygrad.runtime.autogen import cuda

    count = ctypes.c_int32()
    cuda.cuDeviceGetAttribute(ctypes.byref(count), cuda.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, opened.cu_device)
    return max(1, count.value)


def _compute_capability(opened: Any) -> int:
    """Times ten, of an NVIDIA card under OpenCL (cl_nv_device_attribute_query)."""
    from tinygrad.runtime.autogen import opencl as cl

    parts = []
    for query in (0x4000, 0x4001):  # CL_DEVICE_COMPUTE_CAPABILITY_MAJOR_NV, …_MINOR_NV
        part = ctypes.c_uint32()
        cl.clGetDeviceInfo(opened.cl_dev, query, ctypes.sizeof(part), ctypes.byref(part), None)
        parts.append(part.value)
    return 10 * parts[0] + parts[1]
