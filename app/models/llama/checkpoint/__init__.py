"""Weights on disk, whatever their format: files in, checked tensors out."""

from pathlib import Path

from app.models.llama.checkpoint.checkpoint import Checkpoint
from app.models.llama.checkpoint.files import CheckpointError

__all__ = ["Checkpoint", "CheckpointError", "open_checkpoint"]


def open_checkpoint(path: Path | str) -> Checkpoint:
    """Open a checkpoint by what it holds, not by what it is called; CheckpointError or ConfigError for whatever cannot be used."""
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"{path} does not exist; pass the path of a checkpoint, or fetch the default model with `make setup`")
    if path.is_dir():
        return _open_folder(path)
    if not path.is_file():  # opening a pipe would wait for ever
        raise CheckpointError(f"{path} is not a regular file; pass the path of a checkpoint")
    return _open_file(path)


def _open_file(path: Path) -> Checkpoint:
    from app.models.llama.checkpoint.gguf import MAGIC
    from app.models.llama.checkpoint.safetensors import looks_like_safetensors
    from app.models.llama.checkpoint.torch_file import looks_like_torch

    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); check its permissions") from None
    if head[:4] == MAGIC:
        from app.models.llama.checkpoint.gguf_checkpoint import GGUFCheckpoint

        return GGUFCheckpoint.open(path)
    if looks_like_safetensors(head) or looks_like_torch(head) or path.suffix == ".json":
        return _open_around(path)
    if not head:
        raise CheckpointError(f"{path} is empty; download it again")
    raise CheckpointError(f"{path} is not a GGUF file by its first bytes, nor safetensors or PyTorch's; pass one of these")


def _open_around(path: Path) -> Checkpoint:
    """A part of a checkpoint stands for all of it."""
    if not any((path.parent / name).exists() for name in ("config.json", "params.json")):
        raise CheckpointError(f"{path} needs the config.json or params.json that came with it; put it beside it")
    checkpoint = _open_folder(path.parent)
    if path.suffix != ".json" and not any(path.samefile(file) for file in checkpoint.files):
        found = ", ".join(file.name for file in list(checkpoint.files)[:3])
        raise CheckpointError(f"{path} is none of the weights of {path.parent}, which are {found}; pass one of these, or the folder")
    return checkpoint


def _open_folder(path: Path) -> Checkpoint:
    from app.models.llama.checkpoint.gguf_checkpoint import GGUFCheckpoint, gguf_files
    from app.models.llama.checkpoint.hf_checkpoint import missing_index, open_hf, weight_files
    from app.models.llama.checkpoint.meta_checkpoint import open_meta, shard_files

    # Mistral's folders hold both layouts of the same weights
    if (path / "config.json").exists() and weight_files(path):
        return open_hf(path)
    if (path / "params.json").exists() and shard_files(path):
        return open_meta(path)
    if len(models := gguf_files(path)) == 1:
        return GGUFCheckpoint.open(models[0])
    if models:
        raise CheckpointError(f"{path} holds {len(models)} GGUF models; pass one of them, such as {models[0].name}")
    if index := missing_index(path):
        raise CheckpointError(f"{path} holds parts of a model, but not {index.name}, which says what is in them; download it, too")
    raise CheckpointError(
        f"{path} is a folder without a checkpoint: neither config.json with safetensors or pytorch_model files, nor params.json with "
        "consolidated.00.pth, nor a GGUF file; pass the folder or file that holds one"
    )
