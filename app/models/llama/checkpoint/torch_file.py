"""PyTorch checkpoints (.pth, .bin): a zip archive of storages and a pickle that says which tensors they are."""

from pathlib import Path
from typing import Any

from app.models.llama.checkpoint.errors import CheckpointError
from app.models.llama.checkpoint.stored_tensor import (
    MAX_TENSORS,
    MEND,
    SIZES,
    StoredTensor,
    check_name,
    check_shape,
    map_file,
    tensor_nbytes,
)
from app.models.llama.checkpoint.unpickler import TorchTensor, unpickle
from app.models.llama.checkpoint.zip_archive import MAGIC, stored_members
from app.models.llama.sanitize import quoted

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
