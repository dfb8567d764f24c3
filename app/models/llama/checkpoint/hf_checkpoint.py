"""Hugging Face folders: config.json beside safetensors or pytorch_model files, single or sharded with an index."""

from collections.abc import Iterator
from pathlib import Path

from app.models.llama.checkpoint.checkpoint import COMPUTED, canonical_from_hf
from app.models.llama.checkpoint.dense import DenseCheckpoint, Joined
from app.models.llama.checkpoint.files import MAX_INDEX_BYTES, CheckpointError, StoredTensor, read_json
from app.models.llama.checkpoint.safetensors import read_safetensors
from app.models.llama.checkpoint.torch_file import read_torch
from app.models.llama.config import LlamaConfig
from app.models.llama.sanitize import quoted

SINGLE = {"model.safetensors": read_safetensors, "pytorch_model.bin": read_torch}  # safetensors first where both are there
MAX_SHARDS = 1 << 10


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights, in order; empty where there are none."""
    for name in SINGLE:
        if (folder / f"{name}.index.json").exists():
            return _sharded(folder / f"{name}.index.json")
        if (folder / name).exists():
            return [folder / name]
    return []


def missing_index(folder: Path) -> Path | None:
    """The index that shards in `folder` have lost, where there are some."""
    for name in SINGLE:
        stem, suffix = name.split(".")
        if next(folder.glob(f"{stem}-[0-9]*-of-[0-9]*.{suffix}"), None) is not None:
            return folder / f"{name}.index.json"
    return None


def open_hf(folder: Path) -> DenseCheckpoint:
    """Raises CheckpointError or ConfigError with one sentence about what is wrong."""
    settings = read_json(folder / "config.json")
    files = weight_files(folder)
    if not files:
        raise CheckpointError(f"{folder} has a config.json but no {' or '.join(SINGLE)}, single or with an index; download it again")
    tied = settings.get("tie_word_embeddings") is True
    tensors: dict[str, Joined] = {}
    for name, tensor in _all_tensors(folder, files):
        canonical = canonical_from_hf(name)
        if canonical is None:
            if name.endswith(COMPUTED):
                continue
            # an extra bias or norm left out would change every answer without a word
            raise CheckpointError(f"{folder} carries the tensor {name}, which Townhall's LLaMA has no place for; use a plain LLaMA")
        if not (tied and canonical == "output.weight"):  # the embedding, saved twice
            tensors[canonical] = Joined((tensor,))
    embedding = tensors.get("tok_embeddings.weight")
    rows = embedding.shape[0] if embedding and len(embedding.shape) == 2 and embedding.shape[0] else 1
    config = LlamaConfig.from_hf(settings, rows, folder / "config.json")
    kind = "safetensors" if files[0].suffix == ".safetensors" else "PyTorch"
    return DenseCheckpoint(f"Hugging Face, {kind}", files, folder, config, tensors, half_split=True)


def _all_tensors(folder: Path, files: list[Path]) -> Iterator[tuple[str, StoredTensor]]:
    seen: dict[str, Path] = {}
    for path in files:
        read = read_safetensors if path.suffix == ".safetensors" else read_torch
        for name, tensor in read(path).items():
            if name in seen:
                places = f"{seen[name].name} and in {path.name}"
                raise CheckpointError(f"{folder} has the tensor {name} in {places}; remove what does not belong there")
            seen[name] = path
            yield name, tensor


def _sharded(index: Path) -> list[Path]:
    """The files an index names: plain names, beside it."""
    weight_map = read_json(index, MAX_INDEX_BYTES, unique=True).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} holds no weight_map; download it again")
    names = set()
    for name in weight_map.values():
        if not isinstance(name, str) or Path(name).name != name or "\\" in name or not name.isprintable() or len(name) > 255:
            raise CheckpointError(f"{index} points at {quoted(name)}, which is no file name beside it; download it again")
        if not name.endswith((".safetensors", ".bin")):
            raise CheckpointError(f"{index} points at {quoted(name)}, which is neither .safetensors nor .bin; download it again")
        names.add(name)
    if len(names) > MAX_SHARDS:
        raise CheckpointError(f"{index} names {len(names):,} files, more than any sound checkpoint has ({MAX_SHARDS:,}); download it again")
    if missing := sorted(name for name in names if not (index.parent / name).is_file()):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise CheckpointError(f"{index.parent} lacks {missing[0]}{more}, which {index.name} names; download what is missing")
    return [index.parent / name for name in sorted(names)]
