"""PyTorch checkpoints written without PyTorch: the opcodes that torch.save emits, by hand, in a zip archive of stored members."""

import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

STORAGES = {
    "F32": ("FloatStorage", "<f4"),
    "F16": ("HalfStorage", "<f2"),
    "BF16": ("BFloat16Storage", "<u2"),
    "I64": ("LongStorage", "<i8"),
}


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    if 0 <= value < 256:
        return b"K" + bytes([value])
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def call(name: str, arguments: bytes) -> bytes:
    """GLOBAL, a tuple of arguments, REDUCE."""
    module, _, attribute = name.rpartition(".")
    return f"c{module}\n{attribute}\n".encode() + b"(" + arguments + b"tR"


def storage(kind: str, key: str, numel: int) -> bytes:
    name = STORAGES[kind][0]
    return b"(" + text("storage") + f"ctorch\n{name}\n".encode() + text(key) + text("cpu") + number(numel) + b"tQ"


def tensor(
    kind: str, key: str, shape: tuple[int, ...], offset: int = 0, stride: tuple[int, ...] | None = None, numel: int | None = None
) -> bytes:
    if stride is None:
        stride = tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))
    count = offset + int(np.prod(shape)) if numel is None else numel
    arguments = (
        storage(kind, key, count) + number(offset) + numbers(shape) + numbers(stride) + b"\x89" + call("collections.OrderedDict", b"")
    )
    return call("torch._utils._rebuild_tensor_v2", arguments)


def dictionary(items: Mapping[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def pickle(value: bytes) -> bytes:
    return b"\x80\x02" + value + b"."


def encode(values: np.ndarray, kind: str) -> bytes:
    """float32 as the bytes of a storage."""
    if kind == "BF16":
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
    return np.ascontiguousarray(values).astype(STORAGES[kind][1]).tobytes()


def write_archive(path: Path, members: Mapping[str, bytes], folder: str = "archive", method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(f"{folder}/{name}", data)
    return path


def write_torch(path: Path, weights: Mapping[str, np.ndarray], kind: str = "F32", parameter: bool = False) -> Path:
    """Each tensor in a storage of its own; `parameter` wraps them as torch.nn.Parameter does."""
    items, members = {}, {}
    for n, (name, values) in enumerate(weights.items()):
        members[f"data/{n}"] = encode(values, kind)
        made = tensor(kind, str(n), values.shape)
        items[name] = call("torch._utils._rebuild_parameter", made + b"\x88" + call("collections.OrderedDict", b"")) if parameter else made
    return write_archive(path, {"data.pkl": pickle(dictionary(items)), "byteorder": b"little", **members, "version": b"3\n"})
