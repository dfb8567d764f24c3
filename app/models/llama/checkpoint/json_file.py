"""JSON beside the weights: read bounded, whatever is in it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.models.llama.checkpoint.errors import CheckpointError
from app.models.llama.sanitize import clipped

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
