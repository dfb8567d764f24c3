"""A SentencePiece tokenizer.model, taken apart by hand into the metadata a GGUF would carry: bounded, and no parser to trust.

Wire format as in sentencepiece.py; fields of sentencepiece_model.proto. Of a rule for Unicode normalisation only the name
is read (see vocabulary.py).
"""

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from app.models.llama.sanitize import quoted
from app.models.llama.tokenizers.vocabulary import NORMALIZER as RULE_KEY
from app.models.llama.tokenizers.vocabulary import SENTENCEPIECE, TokenizerError

MAX_PIECES = 1 << 21
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
PIECES, TRAINER, NORMALIZER = 1, 2, 3
MODEL_TYPES = {1: "unigram", 2: "BPE", 3: "word", 4: "character"}


def looks_like_sentencepiece(head: bytes) -> bool:
    """The first field is a piece, whose first field is its text."""
    return head[:1] == b"\x0a" and head[2:3] == b"\x0a"


def read_sentencepiece(data: bytes, path: object) -> dict[str, Any]:
    """GGUF's tokenizer.ggml.* metadata. TokenizerError for a damaged file and for a model that is not BPE."""
    tokens: list[str] = []
    scores: list[float] = []
    types: list[int] = []
    trainer: dict[int, Any] = {}
    normalizer: dict[int, Any] = {}
    try:
        for field, value in _fields(data):
            if field == PIECES:
                piece = dict(_fields(value))
                tokens.append(piece[1].decode("utf-8", "backslashreplace"))
                scores.append(struct.unpack("<f", piece.get(2, bytes(4)))[0])
                types.append(int(piece.get(3, 1)))
                if len(tokens) > MAX_PIECES:
                    raise ValueError
            elif field == TRAINER:
                trainer |= dict(_fields(value))
            elif field == NORMALIZER:
                normalizer |= dict(_fields(value))
        ids = {name: _signed(trainer.get(field, default)) for name, field, default in _IDS}
        kind = int(trainer.get(3, 1))
        rule = normalizer.get(1, b"").decode() if normalizer.get(2, b"") else None
        suffixed, escaped = bool(trainer.get(24, 0)), bool(normalizer.get(5, 1))
        metadata: dict[str, Any] = {"tokenizer.ggml.remove_extra_whitespaces": bool(normalizer.get(4, 1))}
    except (IndexError, KeyError, ValueError, TypeError, AttributeError, struct.error):
        raise TokenizerError(f"{path} is no sound SentencePiece model; download it again") from None
    if not tokens:
        raise TokenizerError(f"{path} holds no pieces; download it again")
    if kind != 2:
        name = MODEL_TYPES.get(kind, "unknown")
        raise TokenizerError(f"{path} is a SentencePiece model of kind {name}, where Townhall supports BPE; use another model")
    if suffixed or not escaped:
        raise TokenizerError(
            f"{path} puts spaces behind words or leaves them as they are, where Townhall supports ▁ before; use another model"
        )
    if rule is not None and rule not in SENTENCEPIECE:
        raise TokenizerError(
            f"{path} normalises text by a table of its own ({quoted(rule)}), where Townhall supports {', '.join(SENTENCEPIECE)}; "
            "use another model"
        )
    if rule is not None:
        metadata[RULE_KEY] = rule
    metadata |= {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": np.array(scores, np.float32),
        "tokenizer.ggml.token_type": np.array(np.clip(types, 0, 127), np.int32),
        "tokenizer.ggml.add_space_prefix": bool(normalizer.get(3, 1)),
    }
    metadata |= {f"tokenizer.ggml.{name}_token_id": n for name, n in ids.items() if 0 <= n < len(tokens)}
    return metadata


_IDS = (("unknown", 40, 0), ("bos", 41, 1), ("eos", 42, 2), ("padding", 43, -1))


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(field number, int or bytes) of one message."""
    pos, end = 0, len(data)
    while pos < end:
        key, pos = _varint(data, pos)
        kind = key & 7
        value: Any
        if kind == VARINT:
            value, pos = _varint(data, pos)
        else:
            if kind == BYTES:
                size, pos = _varint(data, pos)
            elif kind in (FIXED32, FIXED64):
                size = 4 if kind == FIXED32 else 8
            else:
                raise ValueError
            if size > end - pos:
                raise ValueError
            value = data[pos : pos + size]
            pos += size
        yield key >> 3, value


def _varint(data: bytes, pos: int) -> tuple[int, int]:
    byte = data[pos]
    if byte < 128:
        return byte, pos + 1
    value = shift = 0
    for at in range(pos, pos + 10):
        byte = data[at]
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (1 << 64) - 1, at + 1
        shift += 7
    raise ValueError
