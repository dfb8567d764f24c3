"""Safetensors files: a length, a JSON header, the bytes; memory mapped, every offset checked.

Format: https://github.com/huggingface/safetensors#format. The header is parsed here so that its tensors stay views of the map.
"""

from pathlib import Path

from app.models.llama.checkpoint.files import (
    MAX_TENSORS,
    MEND,
    SIZES,
    CheckpointError,
    StoredTensor,
    check_name,
    check_shape,
    map_file,
    parse_json,
    tensor_nbytes,
)
from app.models.llama.sanitize import quoted

MAX_HEADER = 1 << 24  # a LLaMA of 405B has a header of 150 KB


def looks_like_safetensors(head: bytes) -> bool:
    """By the first nine bytes: a plausible length, then an opening brace."""
    return len(head) >= 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= MAX_HEADER


def read_safetensors(path: Path) -> dict[str, StoredTensor]:
    """Every tensor by name; CheckpointError for whatever is not sound."""

    def fail(fault: str) -> CheckpointError:
        return CheckpointError(f"{path} {fault}; {MEND}")

    data = map_file(path)
    if len(data) < 8:
        raise fail("is no safetensors file: it has fewer than eight bytes")
    length = int.from_bytes(data[:8].tobytes(), "little")
    if length > MAX_HEADER:
        raise fail(f"claims a header of {length:,} bytes, more than any sound file has ({MAX_HEADER:,})")
    if 8 + length > len(data):
        raise fail(f"ends inside its header ({len(data):,} bytes are there): it is truncated or damaged")
    header = parse_json(data[8 : 8 + length].tobytes(), path, unique=True)
    header.pop("__metadata__", None)
    if len(header) > MAX_TENSORS:
        raise fail(f"lists {len(header):,} tensors, more than any sound file has ({MAX_TENSORS:,})")
    body = data[8 + length :]
    tensors: dict[str, StoredTensor] = {}
    spans: list[tuple[int, int, str]] = []
    for key, entry in header.items():
        name = check_name(key, path)
        if not isinstance(entry, dict):
            raise fail(f"describes {name} by {quoted(entry)}")
        kind, span = entry.get("dtype"), entry.get("data_offsets")
        if not isinstance(kind, str) or kind not in SIZES:
            raise fail(f"stores {name} as {quoted(kind)}, which is no type that Townhall knows")
        shape = check_shape(entry.get("shape"), name, path)
        if not isinstance(span, list) or len(span) != 2 or not all(type(n) is int for n in span):
            raise fail(f"places {name} at {quoted(span)}")
        start, end = span
        if not 0 <= start <= end or end - start != (needed := tensor_nbytes(kind, shape)):
            raise fail(f"places {name} at bytes {quoted(span)}, where {kind} of {shape} needs {tensor_nbytes(kind, shape):,}")
        if end > len(body):
            place = f"{needed:,} bytes from byte {8 + length + start:,}"
            raise fail(f"ends at byte {len(data):,}, where {name} needs {place}: it is truncated or damaged")
        tensors[name] = StoredTensor(kind, shape, body[start:end])
        if needed:
            spans.append((start, end, name))
    _refuse_overlaps(spans, path)
    return tensors


def _refuse_overlaps(spans: list[tuple[int, int, str]], path: Path) -> None:
    spans.sort()
    for (_, end, name), (start, _, other) in zip(spans, spans[1:]):
        if start < end:
            raise CheckpointError(f"{path} lets {name} and {other} overlap: it is damaged; {MEND}")
