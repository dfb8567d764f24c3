"""GGUF headers, version 2 and 3: read in milliseconds, bounded at every step, tensor data left in the memory map.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The gguf package's own reader needs seconds for a 49k
vocabulary and trusts its input.
"""

import mmap
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np

from app.models.llama.checkpoint import ggml
from app.models.llama.checkpoint.files import CheckpointError
from app.models.llama.sanitize import quoted

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
STRING, ARRAY, BOOL = 8, 9, 7
# GGUF value type → struct format, little endian
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", BOOL: "<?", 10: "<Q", 11: "<q", 12: "<d"}

# Far above any real file (a LLaMA of 405B has 1,138 tensors, the largest vocabularies 10^6 pieces), low enough that no
# crafted header takes long to refuse.
MAX_ENTRIES = 1 << 16
MAX_NAME_BYTES = 1 << 8
MAX_STRING_BYTES = 1 << 24
MAX_STRINGS = 1 << 22  # over all arrays
MAX_ARRAY_BYTES = 1 << 28
MAX_DIMS = 4
MAX_ALIGNMENT = 1 << 20

_u64 = struct.Struct("<Q").unpack_from
MEND = "download it again"
OTHER_TYPE = "use a file in Q8_0, Q4_K or F16"


class StringArray(Sequence[str]):
    r"""An array of strings as its bytes lie in the file, decoded only when looked at; bytes that are not UTF-8 show as \xNN."""

    def __init__(self, data: bytes, count: int) -> None:
        self._data = data
        self._count = count
        self._strings: list[str] | None = None

    def _decoded(self) -> list[str]:
        if self._strings is None:
            data, pos, strings = self._data, 0, []
            for _ in range(self._count):
                end = pos + 8 + _u64(data, pos)[0]
                strings.append(data[pos + 8 : end].decode("utf-8", "backslashreplace"))
                pos = end
            self._strings, self._data = strings, b""
        return self._strings

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        return self._decoded()[index]

    def __iter__(self) -> Iterator[str]:
        return iter(self._decoded())

    def __repr__(self) -> str:
        return f"StringArray({self._count} strings)"


@dataclass(frozen=True)
class TensorInfo:
    """Where one tensor lies and how it is encoded."""

    name: str
    shape: tuple[int, ...]  # NumPy's row-major order: (rows, cols); GGUF itself lists the fastest dimension first
    type: ggml.QuantType
    offset: int  # bytes from the start of the file
    nbytes: int


class _Cursor:
    """Reads the header front to back; every read is checked against the end of the file."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path, self.data, self.pos, self.end = path, data, 0, len(data)
        self.strings_left = MAX_STRINGS

    def fail(self, fault: str, mend: str = MEND) -> CheckpointError:
        return CheckpointError(f"{self.path} {fault}; {mend}")

    def need(self, nbytes: int, what: str) -> None:
        if nbytes > self.end - self.pos:
            raise self.fail(f"ends inside {what} ({self.end:,} bytes are there): it is truncated or damaged")

    def number(self, code: str, what: str) -> Any:
        self.need(struct.calcsize(code), what)
        (value,) = struct.unpack_from(code, self.data, self.pos)
        self.pos += struct.calcsize(code)
        return value

    def count(self, limit: int, what: str) -> int:
        value = int(self.number("<Q", what))
        if value > limit:
            raise self.fail(f"claims {value:,} for {what}, more than any sound file has ({limit:,})")
        return value

    def string(self, limit: int, what: str) -> str:
        length = self.count(limit, f"the length of {what}")
        self.need(length, what)
        text = self.data[self.pos : self.pos + length].decode("utf-8", "backslashreplace")
        self.pos += length
        return text

    def name(self, what: str) -> str:
        """A key or a tensor's name: messages repeat it, so it must not steer a terminal."""
        name = self.string(MAX_NAME_BYTES, what)
        if not name.isprintable():
            raise self.fail(f"has {what} that is not printable: it is damaged")
        return name

    def strings(self, count: int, what: str) -> StringArray:
        """Only walks the lengths: a vocabulary that is not used costs no more than this loop."""
        if count > self.strings_left:
            raise self.fail(f"claims {count:,} strings in {what}, more than any sound file has ({MAX_STRINGS:,})")
        self.strings_left -= count
        start = pos = self.pos
        data, limit = self.data, self.pos + MAX_ARRAY_BYTES
        try:
            for _ in range(count):
                pos += 8 + _u64(data, pos)[0]
        except (struct.error, OverflowError):  # a length led beyond the file
            pos = self.end + 1
        if pos > self.end:
            raise self.fail(f"ends inside {what} ({self.end:,} bytes are there): it is truncated or damaged")
        if pos > limit:
            raise self.fail(f"holds {pos - start:,} bytes of strings in {what}, more than any sound file has ({MAX_ARRAY_BYTES:,})")
        self.pos = pos
        return StringArray(data[start:pos], count)

    def value(self, kind: int, what: str) -> Any:
        """One metadata value: a number, a bool, a string, a StringArray, or a NumPy array of numbers."""
        if kind in SCALARS:
            return self.number(SCALARS[kind], what)
        if kind == STRING:
            return self.string(MAX_STRING_BYTES, what)
        if kind != ARRAY:
            raise self.fail(f"gives {what} the unknown value type {kind}")
        item, count = int(self.number("<I", what)), int(self.number("<Q", what))
        if item == STRING:
            return self.strings(count, what)
        if item not in SCALARS:
            raise self.fail(f"holds an array of value type {item} in {what}, which Townhall does not read")
        # one byte per bool whatever it holds: NumPy's bool takes any nonzero byte for True
        dtype = np.dtype(np.bool_) if item == BOOL else np.dtype(SCALARS[item])
        self.need(count * dtype.itemsize, what)
        values = np.frombuffer(self.data, dtype, count, self.pos)
        self.pos += count * dtype.itemsize
        return values


@dataclass(frozen=True)
class GGUFFile:
    """One GGUF file, memory mapped: metadata and the table of tensors are read, tensor data only when asked for."""

    path: Path
    version: int
    metadata: dict[str, Any]
    tensors: dict[str, TensorInfo]
    header_nbytes: int  # up to the first byte that belongs to tensor data
    _bytes: np.ndarray  # the whole file, uint8, read-only

    @classmethod
    def open(cls, path: Path | str) -> "GGUFFile":
        """Read the header of `path`; anything but a sound GGUF raises CheckpointError."""
        path = Path(path)
        try:
            with path.open("rb") as file:
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise CheckpointError(f"{path} does not exist; pass the path of a GGUF file") from None
        except ValueError:  # mmap's word for length 0
            raise CheckpointError(f"{path} is empty; {MEND}") from None
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read ({error.strerror}); pass the path of a GGUF file") from None
        cursor = _Cursor(path, data)
        version = _read_version(cursor)
        n_tensors = cursor.count(MAX_ENTRIES, "the number of tensors")
        n_entries = cursor.count(MAX_ENTRIES, "the number of metadata entries")
        metadata = _read_metadata(cursor, n_entries)
        alignment = _alignment(cursor, metadata)
        entries = [_read_tensor_entry(cursor) for _ in range(n_tensors)]
        start = -(-cursor.pos // alignment) * alignment
        tensors: dict[str, TensorInfo] = {}
        for name, shape, kind, offset in entries:
            if name in tensors:
                raise cursor.fail(f"lists the tensor {name} twice")
            tensors[name] = _place(cursor, name, shape, kind, offset, start, alignment)
        return cls(path, version, metadata, tensors, min(start, cursor.end), np.frombuffer(data, np.uint8))

    @property
    def nbytes(self) -> int:
        return int(self._bytes.nbytes)

    def block(self, offset: int, nbytes: int) -> np.ndarray:
        """uint8 view of the file from `offset`, cut at its end."""
        return self._bytes[offset : offset + nbytes]

    def raw(self, name: str) -> np.ndarray:
        """uint8 (rows, row_bytes) view of the memory map; a 1-D tensor is one row."""
        info = self.tensors[name]
        rows = int(np.prod(info.shape[:-1], dtype=np.int64))
        return self._bytes[info.offset : info.offset + info.nbytes].reshape(rows, -1)

    def dequantize(self, name: str) -> np.ndarray:
        """float32 of the tensor's shape, by the gguf package's reference dequantisers."""
        info = self.tensors[name]
        try:
            values = ggml.dequantize(self.raw(name), info.type)
        except NotImplementedError:
            raise CheckpointError(f"{self.path} stores {name} as {info.type.name}, which cannot be decoded; {OTHER_TYPE}") from None
        return values.reshape(info.shape)


def _read_version(cursor: _Cursor) -> int:
    if cursor.data[:4] != MAGIC:
        raise cursor.fail("is not a GGUF file (its first bytes are not GGUF)", "pass a GGUF file")
    cursor.pos = 4
    version = int(cursor.number("<I", "the version"))
    if version in VERSIONS:
        return version
    if int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS:
        raise cursor.fail("is a big-endian GGUF file, which Townhall does not read", "convert it to little endian")
    raise cursor.fail(f"is GGUF version {version}; Townhall reads versions 2 and 3", "convert it with a current tool")


def _read_metadata(cursor: _Cursor, n_entries: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for _ in range(n_entries):
        key = cursor.name("a metadata key")
        if key in metadata:
            raise cursor.fail(f"gives the metadata key {key!r} twice")
        metadata[key] = cursor.value(int(cursor.number("<I", f"the value type of {key!r}")), f"the metadata {key!r}")
    return metadata


def _alignment(cursor: _Cursor, metadata: dict[str, Any]) -> int:
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or not 0 < alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise cursor.fail(f"declares the alignment {quoted(alignment)}, which is not a power of two up to {MAX_ALIGNMENT:,}")
    return alignment


def _read_tensor_entry(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    """(name, shape in NumPy's order, type number, offset from the start of the data)."""
    name = cursor.name("a tensor name")
    n_dims = int(cursor.number("<I", f"the dimensions of {name}"))
    if not 1 <= n_dims <= MAX_DIMS:
        raise cursor.fail(f"gives the tensor {name} {n_dims:,} dimensions; 1 to {MAX_DIMS} are possible")
    shape = tuple(int(cursor.number("<Q", f"the dimensions of {name}")) for _ in range(n_dims))[::-1]
    return name, shape, int(cursor.number("<I", f"the type of {name}")), int(cursor.number("<Q", f"the offset of {name}"))


def _place(cursor: _Cursor, name: str, shape: tuple[int, ...], kind: int, offset: int, start: int, alignment: int) -> TensorInfo:
    """Check one entry of the tensor table against its type's block size and the end of the file."""
    try:
        encoding = ggml.QuantType(kind)
        block_size, block_bytes = ggml.BLOCKS[encoding]
    except (ValueError, KeyError):
        raise cursor.fail(f"stores the tensor {name} as type {kind}, which Townhall does not know", OTHER_TYPE) from None
    if 0 in shape:
        raise cursor.fail(f"gives the tensor {name} the empty shape {shape}")
    if shape[-1] % block_size:
        raise cursor.fail(f"stores the tensor {name} with {shape[-1]:,} columns as {encoding.name}, whose blocks hold {block_size}")
    nbytes = block_bytes
    for n in (*shape[:-1], shape[-1] // block_size):  # Python's integers: absurd dimensions cannot wrap around
        nbytes *= n
    if offset % alignment:
        raise cursor.fail(f"puts the tensor {name} at offset {offset:,}, which is not a multiple of its alignment {alignment}")
    if start + offset + nbytes > cursor.end:
        needed = f"{nbytes:,} bytes from byte {start + offset:,}"
        raise cursor.fail(f"ends at byte {cursor.end:,}, where {name} needs {needed}: it is truncated or damaged")
    return TensorInfo(name, shape, encoding, start + offset, nbytes)
