"""A tensor as a file stores it: a checked stretch of a memory map, not yet read."""

import mmap
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.models.llama.checkpoint.errors import CheckpointError
from app.models.llama.sanitize import quoted

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
