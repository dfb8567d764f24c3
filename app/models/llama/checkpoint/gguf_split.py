"""GGUF models cut into parts by llama-gguf-split: NAME-00001-of-0000N.gguf, metadata in the first."""

import re
from pathlib import Path

from app.models.llama.checkpoint.errors import CheckpointError
from app.models.llama.checkpoint.gguf import GGUFFile, TensorInfo
from app.models.llama.sanitize import quoted

PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
MAX_PARTS = 1 << 10


def open_parts(path: Path) -> list[GGUFFile]:
    """Every part in order, whichever of them `path` is; a whole file is its only part. CheckpointError for a missing or foreign part."""
    given = GGUFFile.open(path)
    count = _number(given, "split.count", 1)
    if count <= 1:
        return [given]
    match = PART.fullmatch(path.name)
    if count > MAX_PARTS or match is None or int(match[3]) != count:
        names = f"NAME-00001-of-{min(count, 99_999):05}.gguf"
        raise CheckpointError(f"{path} is one of {count:,} parts, but is not called {names}; give all parts the names they had")
    parts = []
    for n in range(count):
        name = f"{match[1]}-{n + 1:05}-of-{count:05}.gguf"
        if name == path.name:
            part = given
        elif (path.parent / name).exists():
            part = GGUFFile.open(path.parent / name)
        else:
            raise CheckpointError(f"{path.parent} lacks {name}, one of the model's {count} parts; download what is missing")
        number, of = _number(part, "split.no", -1), _number(part, "split.count", 1)
        if (number, of) != (n, count):
            raise CheckpointError(f"{part.path} says that it is part {number + 1} of {of}; give all parts the names they had")
        parts.append(part)
    declared, found = _number(parts[0], "split.tensors.count", -1), sum(len(part.tensors) for part in parts)
    if declared not in (-1, found):
        raise CheckpointError(f"{path} belongs to a model of {declared:,} tensors, but its parts hold {found:,}; download them again")
    return parts


def tensors_of(parts: list[GGUFFile]) -> dict[str, tuple[GGUFFile, TensorInfo]]:
    """Where each tensor lies."""
    tensors: dict[str, tuple[GGUFFile, TensorInfo]] = {}
    for part in parts:
        for name, info in part.tensors.items():
            if name in tensors:
                raise CheckpointError(f"{part.path} holds the tensor {name}, which {tensors[name][0].path.name} has too; download it again")
            tensors[name] = part, info
    return tensors


def _number(file: GGUFFile, key: str, default: int) -> int:
    value = file.metadata.get(key, default)
    if type(value) is not int:
        raise CheckpointError(f"{file.path} gives {key} as {quoted(value)}; download it again")
    return value
