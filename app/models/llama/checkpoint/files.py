"""Files of a checkpoint, read within bounds: tensors as checked stretches of a memory map, JSON beside the weights, and their errors."""

import json
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from app.models.llama.sanitize import clipped, quoted
from ext.tinygrad.errors import TownhallError


class CheckpointError(TownhallError):
    """A weights file that cannot be used: names the file, the fault and the mend."""


# element types of safetensors files and pickles → bytes of one element; a model's weights may be in FLOATS only
SIZES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}
FLOATS = ("F32", "F16", "BF16")
# Far above any real model's (a LLaMA of 405B has 1,138 tensors), low enough that no crafted file takes long to refuse.
MAX_TENSORS = 1 << 16
MAX_NAME = 1 << 8
MAX_DIMS = 8
MEND = "download it again"


@dataclass(frozen=True)
class StoredTensor:
    """`data` is a flat uint8 view of the file, row-major, little endian; `type` is a key of SIZES."""

    type: str
    shape: tuple[int, ...]
    data: np.ndarray

    @property
    def nbytes(self) -> int:
        return int(self.data.nbytes)

    def rows(self) -> np.ndarray:
        """uint8 (rows, row_bytes) of a 2-D tensor; no copy."""
        return self.data.reshape(self.shape[0], -1)

    def float32(self) -> np.ndarray:
        """The values, of the tensor's shape; a copy."""
        if self.type == "F32":
            return self.data.view("<f4").astype(np.float32).reshape(self.shape)
        if self.type == "F16":
            return self.data.view("<f2").astype(np.float32).reshape(self.shape)
        assert self.type == "BF16", self.type
        return (self.data.view("<u2").astype(np.uint32) << 16).view(np.float32).reshape(self.shape)


def map_file(path: Path) -> np.ndarray:
    """The file as read-only uint8; CheckpointError where it is missing, empty or no file."""
    if path.exists() and not path.is_file():  # opening a pipe would wait for ever
        raise CheckpointError(f"{path} is not a regular file; pass the path of a checkpoint")
    try:
        with path.open("rb") as file:
            return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist; {MEND}") from None
    except ValueError:  # mmap's word for length 0
        raise CheckpointError(f"{path} is empty; {MEND}") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); check its permissions") from None


def tensor_nbytes(type: str, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor, in Python's integers: absurd dimensions cannot wrap around."""
    nbytes = SIZES[type]
    for n in shape:
        nbytes *= n
    return nbytes


def check_name(name: object, path: Path) -> str:
    """A tensor's name: messages repeat it, so it must not flood or steer a terminal."""
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= MAX_NAME:
        raise CheckpointError(f"{path} names a tensor {quoted(name)}, which is no name: it is damaged; {MEND}")
    return name


def check_shape(shape: object, name: str, path: Path) -> tuple[int, ...]:
    """Up to MAX_DIMS whole numbers."""
    if not isinstance(shape, list | tuple) or len(shape) > MAX_DIMS or not all(type(n) is int and 0 <= n < 1 << 40 for n in shape):
        raise CheckpointError(f"{path} gives {name} the shape {quoted(shape)}, which is none: it is damaged; {MEND}")
    return tuple(shape)


MAX_CONFIG_BYTES = 1 << 20  # config.json and its like have a few KB
MAX_INDEX_BYTES = 1 << 24  # one line for each tensor
MAX_TOKENIZER_BYTES = 1 << 26  # 17 MB for the largest vocabularies


def parse_json(text: bytes, where: Path | str, unique: bool = False) -> dict[str, Any]:
    """A JSON object; CheckpointError for anything else. `unique` refuses a key that is given twice."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) != len(items):
            seen: set[str] = set()
            twice = next(key for key, _ in items if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise CheckpointError(f"{where} lists {clipped(twice)} twice; download it again")
        return found

    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=pairs if unique else None)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        fault = "it is nested too deep" if isinstance(error, RecursionError) else clipped(error, 80)
        raise CheckpointError(f"{where} is not sound JSON ({fault}); download it again") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{where} holds no JSON object; download it again")
    return value


def read_json(path: Path, limit: int = MAX_CONFIG_BYTES, unique: bool = False) -> dict[str, Any]:
    """The object in the file at `path`."""
    return parse_json(read_bytes(path, limit), path, unique)


def read_optional_json(path: Path, limit: int = MAX_CONFIG_BYTES) -> Mapping[str, Any]:
    """Like read_json; empty where there is no such file."""
    return read_json(path, limit) if path.exists() else {}


def read_bytes(path: Path, limit: int) -> bytes:
    """A whole file of at most `limit` bytes."""
    if path.exists() and not path.is_file():
        raise CheckpointError(f"{path} is not a regular file; download it again")
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); download it again") from None
    if len(data) > limit:
        raise CheckpointError(f"{path} has more than {limit:,} bytes, more than any sound file of its kind; download it again")
    return data
