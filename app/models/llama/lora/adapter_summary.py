"""What an adapter's files say of it, without the model that it was trained on."""

import math
from pathlib import Path
from typing import Any

from app.models.llama.checkpoint.files import read_json
from app.models.llama.lora.adapter import AdapterError
from app.models.llama.lora.mlx_folder import WEIGHTS as MLX_WEIGHTS
from app.models.llama.lora.mlx_folder import is_mlx
from app.models.llama.lora.peft_config import CONFIG, read_peft_config
from app.models.llama.lora.peft_folder import WEIGHTS
from app.models.llama.sanitize import clipped


def summarise(path: Path) -> dict[str, Any]:
    """Every value is one that JSON has. AdapterError or CheckpointError for what is no adapter."""
    if path.is_file() and path.suffix in (".safetensors", ".bin", ".json"):
        path = path.parent
    if path.is_file():
        return _gguf(path)
    if not (path / CONFIG).is_file():
        raise AdapterError(f"{path} has no {CONFIG}; pass the folder that peft or mlx-lm wrote, or a GGUF adapter")
    return _mlx(path) if is_mlx(path) else _peft(path)


def _counted(shapes: dict[str, tuple[int, ...]], nbytes: int) -> dict[str, Any]:
    return {"tensors": len(shapes), "parameters": sum(math.prod(shape) for shape in shapes.values()), "bytes": nbytes}


def _peft(path: Path) -> dict[str, Any]:
    config = read_peft_config(path / CONFIG)
    file = next((path / name for name in WEIGHTS if (path / name).exists()), None)
    if file is None:
        raise AdapterError(f"{path} has an {CONFIG} but no {' or '.join(WEIGHTS)}; download it again")
    shapes = {name: tensor.shape for name, tensor in WEIGHTS[file.name](file).items()}
    ranks = {shape[0] for name, shape in shapes.items() if name.endswith(("lora_A.weight", "lora_embedding_A")) and shape}
    targets = [config.targets] if isinstance(config.targets, str) else list(config.targets)
    return {
        "path": str(path),
        "format": f"peft, {'safetensors' if file.suffix == '.safetensors' else 'PyTorch'}",
        "base": clipped(config.base),
        "ranks": sorted(ranks),
        "alpha": config.alpha,
        "rslora": config.rslora,
        "dora": config.dora,
        "targets": sorted(clipped(name) for name in targets),
        "layers": list(config.layers or ()),
        "replaces": sorted(clipped(name) for name in config.modules_to_save),
        "bias": config.bias,
        **_counted(shapes, file.stat().st_size),
    }


def _mlx(path: Path) -> dict[str, Any]:
    from app.models.llama.checkpoint.safetensors import read_safetensors

    settings, tensors = read_json(path / CONFIG), read_safetensors(path / MLX_WEIGHTS)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    parameters = settings.get("lora_parameters")
    ranks = {shape[1] for name, shape in shapes.items() if name.endswith("lora_a") and len(shape) == 2}
    return {
        "path": str(path),
        "format": "mlx-lm, safetensors",
        "base": clipped(settings.get("model") or ""),
        "ranks": sorted(ranks),
        "scale": parameters.get("scale") if isinstance(parameters, dict) else None,
        "dora": settings.get("fine_tune_type") == "dora",
        "targets": sorted({clipped(name.split(".")[-2]) for name in shapes if name.count(".")}),
        **_counted(shapes, (path / MLX_WEIGHTS).stat().st_size),
    }


def _gguf(path: Path) -> dict[str, Any]:
    from app.models.llama.checkpoint.gguf import GGUFFile

    file = GGUFFile.open(path)
    if file.metadata.get("general.type") != "adapter":
        raise AdapterError(f"{path} is no adapter but a model (general.type); townhall inspect tells what it holds")
    alpha, base = file.metadata.get("adapter.lora.alpha"), file.metadata.get("general.base_model.0.name")
    return {
        "path": str(path),
        "format": f"GGUF version {file.version}",
        "architecture": clipped(file.metadata.get("general.architecture")),
        "base": clipped(base) if isinstance(base, str) else "",
        "ranks": sorted({info.shape[-1] for name, info in file.tensors.items() if name.endswith(".lora_b")}),
        "alpha": alpha if isinstance(alpha, int | float) else None,
        "targets": sorted({name.split(".")[-3] for name in file.tensors if name.count(".") > 1}),
        **_counted({name: info.shape for name, info in file.tensors.items()}, file.nbytes),
    }
