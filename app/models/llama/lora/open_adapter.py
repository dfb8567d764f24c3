"""An adapter by its path, whatever wrote it: peft, mlx-lm or llama.cpp."""

from pathlib import Path

from app.models.llama.config import LlamaConfig
from app.models.llama.lora.adapter import Adapter, AdapterError


def open_adapter(path: Path | str, config: LlamaConfig) -> Adapter:
    """By what is there, not by what it is called; AdapterError or CheckpointError for whatever does not fit the model."""
    from app.models.llama.lora.gguf_adapter import read_gguf_adapter
    from app.models.llama.lora.mlx_folder import is_mlx, read_mlx
    from app.models.llama.lora.peft_config import CONFIG
    from app.models.llama.lora.peft_folder import read_peft

    path = Path(path)
    if not path.exists():
        raise AdapterError(f"{path} does not exist; pass the folder that peft or mlx-lm wrote, or a GGUF adapter")
    if path.is_file():
        with path.open("rb") as file:
            if file.read(4) == b"GGUF":
                return read_gguf_adapter(path, config)
        if path.suffix not in (".safetensors", ".bin", ".json"):
            raise AdapterError(f"{path} is no adapter by its first bytes; pass the folder that peft or mlx-lm wrote, or a GGUF adapter")
        path = path.parent
    if (path / CONFIG).is_file():
        return read_mlx(path, config) if is_mlx(path) else read_peft(path, config)
    found = sorted(path.glob("*.gguf")) if path.is_dir() else []
    if len(found) == 1:
        return read_gguf_adapter(found[0], config)
    raise AdapterError(f"{path} has no {CONFIG}, which tells how its adapter is scaled; put it beside the weights")
