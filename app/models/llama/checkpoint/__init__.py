"""Weights on disk, whatever their format: files in, checked tensors out."""

from pathlib import Path

from app.models.llama.checkpoint.checkpoint import Checkpoint
from app.models.llama.checkpoint.errors import CheckpointError

__all__ = ["Checkpoint", "CheckpointError", "open_checkpoint"]


def open_checkpoint(path: Path | str) -> Checkpoint:
    """Open a checkpoint by what it holds, not by what it is called; anything unusable raises CheckpointError or ConfigError."""
    from app.models.llama.checkpoint.gguf_checkpoint import GGUFCheckpoint

    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"{path} does not exist; pass --model the path of a GGUF file, or fetch the default model with `make setup`")
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder, where Townhall reads a GGUF file; pass --model the path of the file itself")
    if not path.is_file():  # opening a pipe would wait for ever
        raise CheckpointError(f"{path} is not a regular file; pass --model the path of a GGUF file")
    return GGUFCheckpoint.open(path)
