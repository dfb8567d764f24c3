"""A KV cache on disk: safetensors with the identity of what made it; read back only when that is the same."""

import hashlib
import json
import os
import secrets
from pathlib import Path

import numpy as np

FORMAT = "townhall-kv-1"
HEADER = 1 << 20  # bytes that a file's header may take


class SnapshotError(Exception):
    """A snapshot that is damaged, or was made by something else; the remedy is to compute its entries anew."""


def _header(identity: dict[str, str], capacity: int) -> dict[str, str]:
    return {"format": FORMAT, "identity": json.dumps(identity, sort_keys=True), "capacity": str(capacity)}


def key(identity: dict[str, str], capacity: int, tokens: list[int]) -> str:
    """A file name that two different snapshots never share: SHA-256 over everything a snapshot is keyed by."""
    text = json.dumps({**_header(identity, capacity), "tokens": tokens}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _digest(tensors: dict[str, np.ndarray]) -> str:
    total = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        total.update(name.encode())
        total.update(np.ascontiguousarray(tensors[name]).view(np.uint8).reshape(-1).data)
    return total.hexdigest()


def save(path: Path, identity: dict[str, str], capacity: int, tokens: list[int], tensors: dict[str, np.ndarray]) -> None:
    """Write beside `path` and rename, so that a reader or a crash never meets half a file; OSError when the disk says no."""
    from safetensors.numpy import save as serialize

    contents = {**tensors, "tokens": np.array(tokens, np.int32)}
    data = serialize(contents, metadata={**_header(identity, capacity), "digest": _digest(contents)})
    part = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        part.write_bytes(data)  # not forced to the disk: what a crash leaves of it, the digest tells
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def load(path: Path, identity: dict[str, str], capacity: int, most: int) -> tuple[list[int], dict[str, np.ndarray]]:
    """The ids and the tensors of a snapshot made under the same identity and capacity; SnapshotError otherwise.

    `most` are the bytes that the tensors of a whole cache take: a file beyond that is not read."""
    from safetensors import SafetensorError, safe_open

    try:
        if (size := path.stat().st_size) > most + HEADER + 4 * capacity:
            raise SnapshotError(f"{path} has {size:,} bytes, more than this cache can hold")
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if foreign := [name for name, value in _header(identity, capacity).items() if metadata.get(name) != value]:
                raise SnapshotError(f"{path} was made under another {', '.join(foreign)}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, ValueError) as error:
        raise SnapshotError(f"{path} cannot be read ({error})") from error
    if _digest(tensors) != metadata.get("digest"):
        raise SnapshotError(f"{path} is damaged: its digest does not match")
    ids = tensors.pop("tokens", np.zeros(0, np.int32))
    if ids.dtype != np.int32 or ids.ndim != 1 or len(ids) > capacity:
        raise SnapshotError(f"{path} holds no usable list of tokens")
    return ids.tolist(), tensors
