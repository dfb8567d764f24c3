"""Meta's original folders: params.json, tokenizer.model and consolidated.NN.pth, one or up to eight cut for as many GPUs."""

import re
from pathlib import Path

import numpy as np

from app.models.llama.checkpoint.checkpoint import expected_shapes
from app.models.llama.checkpoint.dense import DenseCheckpoint, Joined, joined
from app.models.llama.checkpoint.files import CheckpointError, StoredTensor, read_json
from app.models.llama.checkpoint.names import COMPUTED, canonical_from_meta
from app.models.llama.checkpoint.torch_file import read_torch
from app.models.llama.config_meta import config_from_meta

SHARD = re.compile(r"consolidated\.(\d\d)\.pth")
_NOTHING = StoredTensor("F32", (0,), np.zeros(0, np.uint8))


def shard_files(folder: Path) -> list[Path]:
    """consolidated.00.pth and those that follow; CheckpointError where one between is missing."""
    found = sorted(path for path in folder.glob("consolidated.*.pth") if SHARD.fullmatch(path.name))
    for n, path in enumerate(found):
        if path.name != f"consolidated.{n:02}.pth":
            raise CheckpointError(f"{folder} lacks consolidated.{n:02}.pth, but has {path.name}; download what is missing")
    return found


def open_meta(folder: Path) -> DenseCheckpoint:
    """Raises CheckpointError or ConfigError with one sentence about what is wrong."""
    params = read_json(folder / "params.json")
    files = shard_files(folder)
    shards = [_canonical(path) for path in files]
    if not shards:
        raise CheckpointError(f"{folder} has a params.json but no consolidated.00.pth; download it again")
    first = shards[0]
    for n, shard in enumerate(shards):
        if different := first.keys() ^ shard.keys():
            place = f"in some of its shards only (see consolidated.{n:02}.pth)"
            raise CheckpointError(f"{folder} has {min(different)} {place}; download it again")
    dim = params.get("dim")
    hidden = sum(_rows(shard, "layers.0.feed_forward.w1.weight", folder) for shard in shards)
    # LLaMA 1 and 2 cut the embedding's columns, LLaMA 3 its rows
    by_rows = first.get("tok_embeddings.weight", _NOTHING).shape[1:] == (dim,)
    rows = sum(_rows(shard, "tok_embeddings.weight", folder) for shard in (shards if by_rows else shards[:1]))
    config = config_from_meta(params, hidden, rows, "output.weight" not in first, folder / "params.json")
    expected = expected_shapes(config)
    tensors = {}
    for key in first:
        parts = [shard[key] for shard in shards]
        tensors[key] = joined(key, parts, expected[key], folder) if key in expected else Joined((parts[0],))
    return DenseCheckpoint("Meta's original", files, _tokenizer_folder(folder), config, tensors, half_split=False)


def _canonical(path: Path) -> dict[str, StoredTensor]:
    tensors = {}
    for name, tensor in read_torch(path).items():
        if canonical_from_meta(name):
            tensors[name] = tensor
        elif not name.endswith(COMPUTED):
            raise CheckpointError(f"{path} carries the tensor {name}, which Townhall's LLaMA has no place for; use a plain LLaMA")
    return tensors


def _rows(shard: dict[str, StoredTensor], name: str, folder: Path) -> int:
    tensor = shard.get(name)
    if tensor is None or len(tensor.shape) != 2 or 0 in tensor.shape:
        raise CheckpointError(f"{folder} lacks the matrix {name}; use a complete LLaMA checkpoint")
    return tensor.shape[0]


def _tokenizer_folder(folder: Path) -> Path:
    """LLaMA 1 came with one tokenizer.model for all sizes, in the folder above theirs."""
    return folder.parent if not (folder / "tokenizer.model").exists() and (folder.parent / "tokenizer.model").exists() else folder
