"""PyTorch checkpoints (.pth, .bin): a zip archive of storages and a pickle that says which tensors they are.

Archive format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT. The standard library's zipfile would copy every member; here
they stay views of the memory map, and the directory is bounded before it is read.
"""

import struct
from pathlib import Path
from typing import Any

import numpy as np

from app.models.llama.checkpoint.files import (
    MAX_TENSORS,
    MEND,
    SIZES,
    CheckpointError,
    StoredTensor,
    check_name,
    check_shape,
    map_file,
    tensor_nbytes,
)
from app.models.llama.checkpoint.unpickler import TorchTensor, unpickle
from app.models.llama.sanitize import quoted

MAGIC = b"PK\x03\x04"
END, END64, LOCATOR64, ENTRY = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", b"PK\x01\x02"
MAX_DIRECTORY = 1 << 24
FULL32 = 0xFFFFFFFF  # "see the zip64 field"


def stored_members(data: np.ndarray, path: Path) -> dict[str, np.ndarray]:
    """Member name → its bytes, a view of `data`; CheckpointError for a compressed, encrypted or damaged archive."""

    def fail(fault: str, mend: str = MEND) -> CheckpointError:
        return CheckpointError(f"{path} {fault}; {mend}")

    try:
        count, size, offset = _directory(data)
    except (struct.error, ValueError):
        raise fail("ends without a zip directory: it is truncated or damaged") from None
    if count > MAX_TENSORS or size > MAX_DIRECTORY or offset + size > len(data):
        raise fail(f"claims {count:,} members in a directory of {size:,} bytes at byte {offset:,}, which no sound file has")
    directory, pos = data[offset : offset + size].tobytes(), 0
    members: dict[str, np.ndarray] = {}
    for _ in range(count):
        try:
            if directory[pos : pos + 4] != ENTRY:
                raise ValueError
            flags, method = struct.unpack_from("<HH", directory, pos + 8)
            packed, nbytes, n_name, n_extra, n_comment = struct.unpack_from("<IIHHH", directory, pos + 20)
            (start,) = struct.unpack_from("<I", directory, pos + 42)
            name = directory[pos + 46 : pos + 46 + n_name].decode("utf-8", "backslashreplace")
            extra = directory[pos + 46 + n_name : pos + 46 + n_name + n_extra]
            nbytes, packed, start = _wide(extra, nbytes, packed, start)
            pos += 46 + n_name + n_extra + n_comment
            if pos > len(directory) or not name.isprintable() or name in members:
                raise ValueError
        except (struct.error, ValueError):
            raise fail("has a damaged zip directory") from None
        if method or flags & 1 or packed != nbytes:
            raise fail(f"holds {name} compressed or encrypted, where PyTorch stores it as it is", "save it again with torch.save")
        members[name] = _member(data, start, nbytes, fail(f"places {name} beyond its end: it is truncated or damaged"))
    return members


def _directory(data: np.ndarray) -> tuple[int, int, int]:
    """(members, bytes, offset) of the central directory, from the record at the end."""
    tail = data[-(65_535 + 22) :].tobytes()
    at = tail.rindex(END)
    count, size, offset = struct.unpack_from("<HII", tail, at + 10)
    at += len(data) - len(tail)
    if at >= 20 and (count == 0xFFFF or FULL32 in (size, offset) or data[at - 20 : at - 16].tobytes() == LOCATOR64):
        locator = data[at - 20 : at].tobytes()
        if locator[:4] == LOCATOR64:
            (at,) = struct.unpack_from("<Q", locator, 8)
            record = data[at : at + 56].tobytes() if at < len(data) else b""
            if record[:4] != END64:
                raise ValueError
            count, size, offset = struct.unpack_from("<QQQ", record, 32)
    return count, size, offset


def _wide(extra: bytes, nbytes: int, packed: int, start: int) -> tuple[int, int, int]:
    """Sizes and offset with those that did not fit 32 bits taken from the zip64 field."""
    pos = 0
    while pos + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, pos)
        if kind == 1:
            at, values = pos + 4, [nbytes, packed, start]
            for i, value in enumerate(values):
                if value == FULL32:
                    (values[i],) = struct.unpack_from("<Q", extra, at)
                    at += 8
            return values[0], values[1], values[2]
        pos += 4 + length
    return nbytes, packed, start


def _member(data: np.ndarray, start: int, nbytes: int, error: CheckpointError) -> np.ndarray:
    head = data[start : start + 30].tobytes() if start < len(data) else b""
    if head[:4] != MAGIC or len(head) < 30:
        raise error
    n_name, n_extra = struct.unpack_from("<HH", head, 26)
    begin = start + 30 + n_name + n_extra
    if begin + nbytes > len(data):
        raise error
    return data[begin : begin + nbytes]


CONVERT = "save it again with a current torch.save"
WRAPPERS = ("state_dict", "model")  # training code saves its weights under such a name


def looks_like_torch(head: bytes) -> bool:
    """A zip archive, or a bare pickle (torch.save before 1.6, which is refused by name)."""
    return head[:4] == MAGIC or (head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5"))


def read_torch(path: Path) -> dict[str, StoredTensor]:
    """Every tensor by name, as views of the memory map; no code of the file is run. CheckpointError for whatever is not sound."""
    data = map_file(path)
    if data[:4].tobytes() != MAGIC:
        if looks_like_torch(data[:2].tobytes()):
            raise CheckpointError(f"{path} is in the format of PyTorch before 1.6, which cannot be memory mapped; {CONVERT}")
        raise CheckpointError(f"{path} is no PyTorch checkpoint (its first bytes are no zip archive's); {MEND}")
    members = stored_members(data, path)
    pickles = [name for name in members if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise CheckpointError(f"{path} holds {len(pickles)} files called data.pkl where a PyTorch checkpoint has one; {MEND}")
    folder = pickles[0].removesuffix("data.pkl")
    if (order := members.get(f"{folder}byteorder")) is not None and order[:8].tobytes().strip() != b"little":
        raise CheckpointError(f"{path} is in big-endian byte order, which Townhall does not read; {CONVERT}")
    value = unpickle(members[pickles[0]].tobytes(), str(path))
    return {name: _place(name, tensor, members, folder, path) for name, tensor in _tensors(value, path).items()}


def _tensors(value: Any, path: Path) -> dict[str, TorchTensor]:
    if isinstance(value, dict):
        for wrapper in WRAPPERS:
            if isinstance(inner := value.get(wrapper), dict):
                value = inner
                break
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds {quoted(type(value).__name__)} where a checkpoint has tensors by name; use a plain state dict")
    found = {check_name(name, path): tensor for name, tensor in value.items() if isinstance(tensor, TorchTensor)}
    if not found or len(found) > MAX_TENSORS:
        raise CheckpointError(f"{path} holds {len(found):,} tensors, where a checkpoint has some hundreds; use a plain state dict")
    return found


def _place(name: str, tensor: TorchTensor, members: dict[str, Any], folder: str, path: Path) -> StoredTensor:
    storage, shape = tensor.storage, check_shape(tensor.shape, name, path)
    member = members.get(f"{folder}data/{storage.key}")
    if member is None:
        raise CheckpointError(f"{path} keeps {name} in the storage {quoted(storage.key)}, which it lacks: it is damaged; {MEND}")
    contiguous, step = [], 1
    for n in reversed(shape):
        contiguous.append(step)
        step *= n
    # the stride of a dimension of one element says nothing
    if len(tensor.stride) != len(shape) or any(
        n > 1 and stride != expected for n, stride, expected in zip(shape, tensor.stride, reversed(contiguous), strict=True)
    ):
        raise CheckpointError(f"{path} stores {name} with strides {quoted(tensor.stride)}, which is not row by row; {CONVERT}")
    start, nbytes = tensor.offset * SIZES[storage.type], tensor_nbytes(storage.type, shape)
    if not 0 <= start <= start + nbytes <= len(member):
        raise CheckpointError(f"{path} needs {nbytes:,} bytes for {name}, of a storage of {len(member):,}: it is damaged; {MEND}")
    return StoredTensor(storage.type, shape, member[start : start + nbytes])
