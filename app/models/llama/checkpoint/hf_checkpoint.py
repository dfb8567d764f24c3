"""Hugging Face folders: config.json beside safetensors or pytorch_model files, single or sharded with an index."""

import re
from collections.abc import Iterator
from pathlib import Path

from app.models.llama.checkpoint.checkpoint import expected_shapes
from app.models.llama.checkpoint.dense import DenseCheckpoint, Joined
from app.models.llama.checkpoint.files import MAX_INDEX_BYTES, CheckpointError, StoredTensor, read_json
from app.models.llama.checkpoint.names import COMPUTED, HF_EXPERTS, canonical_from_hf, split_layer
from app.models.llama.checkpoint.safetensors import read_safetensors
from app.models.llama.checkpoint.torch_file import read_torch
from app.models.llama.config import LlamaConfig
from app.models.llama.config_hf import config_from_hf, family_of
from app.models.llama.sanitize import quoted

SINGLE = {"model.safetensors": read_safetensors, "pytorch_model.bin": read_torch}  # safetensors first where both are there
MAX_SHARDS = 1 << 10
EMBEDDINGS = ("model.embed_tokens.weight", "model.tok_embeddings.weight")
OTHER_SENSES = ("vision_tower.", "multi_modal_projector.", "audio_tower.", "model.vision_tower.", "model.multi_modal_projector.")
FUSED = {"attention.wqkv.weight", "mlp.gate_up_proj.weight", "mlp.experts.gate_up_proj", "mlp.experts.down_proj"}
FUSED |= {f"self_attn.qkv_proj.{kind}" for kind in ("weight", "bias")}
EXPERT = re.compile(r"([a-z_.]+experts)\.(0|[1-9][0-9]{0,3})\.(.+)")


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
    path = folder / "config.json"
    if isinstance(settings.get("text_config"), dict) and "model_type" in settings["text_config"]:  # of a model that sees pictures, too
        settings = settings["text_config"]
    family = family_of(settings, path)
    stored = {
        name.removeprefix("language_model."): tensor for name, tensor in _all_tensors(folder, files) if not name.startswith(OTHER_SENSES)
    }
    embedding = next((stored[name] for name in EMBEDDINGS if name in stored), None)
    rows = embedding.shape[0] if embedding and len(embedding.shape) == 2 and embedding.shape[0] else 1
    config = config_from_hf(settings, rows, path)
    expected = expected_shapes(config).keys()
    tensors: dict[str, Joined] = {}
    experts: dict[str, dict[int, StoredTensor]] = {}
    for name, tensor in stored.items():
        if (several := fused_parts(name, tensor, config)) is not None:
            tensors |= several
        elif (expert := _expert(name)) is not None:
            experts.setdefault(expert[0], {})[expert[1]] = tensor
        elif (canonical := canonical_from_hf(name, config.traits)) in expected or (canonical and _beyond(canonical, config)):
            if not (config.tied and canonical == "output.weight"):  # the embedding, saved twice
                tensors[canonical] = Joined((tensor,))
        elif not name.endswith(COMPUTED):
            # an extra bias or norm left out would change every answer without a word
            raise CheckpointError(
                f"{folder} carries the tensor {name}, which Townhall has no place for in the model type {config.architecture}; "
                "use a checkpoint as its authors published it"
            )
    for canonical, parts in experts.items():
        if sorted(parts) != list(range(len(parts))):
            raise CheckpointError(f"{folder} lacks some of the experts of {canonical}; download it again")
        tensors[canonical] = Joined(tuple(parts[i] for i in range(len(parts))))
    kind = "safetensors" if files[0].suffix == ".safetensors" else "PyTorch"
    return DenseCheckpoint(
        f"Hugging Face, {kind}", files, folder, config, tensors, half_split=family.half_split, norm_offset=family.norm_offset
    )


def _beyond(canonical: str, config: LlamaConfig) -> bool:
    """Of a layer that the configuration does not describe, or the head of a tied model?"""
    parts = canonical.split(".")
    return canonical == "output.weight" or (parts[0] == "layers" and int(parts[1]) >= config.n_layers)


def fused_parts(name: str, tensor: StoredTensor, config: LlamaConfig) -> dict[str, Joined] | None:
    """The parts of a tensor that holds several: by rows one below the other (Phi-3), or group by group of heads (InternLM 2)."""
    found = split_layer(name, "model.layers.")
    if found is None or found[1] not in FUSED:
        return None
    layer, part = found
    c, q, kv = config, config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    if part == "attention.wqkv.weight":
        group = q // c.n_kv_heads
        cuts = {
            "attention.wq": [(g * (group + 2 * c.head_dim), group) for g in range(c.n_kv_heads)],
            "attention.wk": [(g * (group + 2 * c.head_dim) + group, c.head_dim) for g in range(c.n_kv_heads)],
            "attention.wv": [(g * (group + 2 * c.head_dim) + group + c.head_dim, c.head_dim) for g in range(c.n_kv_heads)],
        }
    elif part.startswith("mlp.experts."):
        return {f"layers.{layer}.{ours}": joined for ours, joined in _stacked(part, tensor, config).items()}
    elif part.startswith("self_attn.qkv_proj."):
        cuts = {"attention.wq": [(0, q)], "attention.wk": [(q, kv)], "attention.wv": [(q + kv, kv)]}
    else:
        cuts = {"feed_forward.w1": [(0, c.hidden_dim)], "feed_forward.w3": [(c.hidden_dim, c.hidden_dim)]}
    kind = part.rpartition(".")[2]
    wanted = max(start + n for cut in cuts.values() for start, n in cut)
    if not tensor.shape or tensor.shape[0] != wanted:
        raise CheckpointError(
            f"the tensor {name} has the shape {tensor.shape}, where its configuration needs {wanted} rows; download it again"
        )
    return {f"layers.{layer}.{ours}.{kind}": Joined(tuple(_rows(tensor, start, n) for start, n in cut)) for ours, cut in cuts.items()}


def _stacked(part: str, tensor: StoredTensor, config: LlamaConfig) -> dict[str, Joined]:
    """Experts one behind the other in one tensor (E, rows, cols), as transformers 5 keeps them in memory."""
    if len(tensor.shape) != 3:
        raise CheckpointError(f"the tensor {part} has the shape {tensor.shape}, where experts need three dimensions; download it again")
    count, rows, cols = tensor.shape
    flat = StoredTensor(tensor.type, (count * rows, cols), tensor.data)
    if part.endswith("down_proj"):
        return {"feed_forward.experts.w2.weight": Joined((flat,))}
    half = rows // 2
    return {
        f"feed_forward.experts.{ours}.weight": Joined(tuple(_rows(flat, e * rows + at, half) for e in range(count)))
        for ours, at in (("w1", 0), ("w3", half))
    }


def _rows(tensor: StoredTensor, start: int, n: int) -> StoredTensor:
    size = tensor.nbytes // tensor.shape[0]
    return StoredTensor(tensor.type, (n, *tensor.shape[1:]), tensor.data[start * size : (start + n) * size])


def _expert(name: str) -> tuple[str, int] | None:
    """(canonical name, number) of one expert's matrix."""
    found = split_layer(name, "model.layers.")
    match = EXPERT.fullmatch(found[1]) if found else None
    if found is None or match is None or (ours := HF_EXPERTS.get(f"{match[1]}.{{}}.{match[3]}")) is None:
        return None
    return f"layers.{found[0]}.feed_forward.experts.{ours}.weight", int(match[2])


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
