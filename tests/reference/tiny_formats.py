"""The tiny random LLaMA of tiny.py in every format that checkpoints come in; all of them hold the same numbers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import safetensors.numpy

from app.models.llama.checkpoint.names import GGUF_LAYER_NAMES, GGUF_NAMES, HF_LAYER_NAMES, HF_NAMES
from tests.reference.tiny import CHAT_TEMPLATE, make_tiny_gguf, random_weights
from tests.reference.torch_writer import write_torch
from tests.reference.words import MERGES, SPECIAL_TOKENS, TOKENS

SIZES = {"n_layers": 2, "dim": 64, "n_heads": 4, "n_kv_heads": 2, "head_dim": 16, "hidden_dim": 128, "vocab_size": len(TOKENS)}
COLUMNS = (
    "attention.wo.weight",
    "feed_forward.w2.weight",
)  # cut by columns in Meta's shards; norms are copied, everything else cut by rows
CONTEXT = 256


def to_meta(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """GGUF's names → Meta's; both pair RoPE's entries side by side."""
    return {_rename(name, GGUF_NAMES, GGUF_LAYER_NAMES, "blk.", "layers."): values for name, values in weights.items()}


def to_hf(weights: Mapping[str, np.ndarray], head_dim: int = 16) -> dict[str, np.ndarray]:
    """Meta's tensors under Hugging Face's names, queries and keys permuted as transformers' conversion script does."""
    globals_, layers = {ours: theirs for theirs, ours in HF_NAMES.items()}, {ours: theirs for theirs, ours in HF_LAYER_NAMES.items()}
    out = {}
    for name, values in to_meta(weights).items():
        if name.endswith(("attention.wq.weight", "attention.wk.weight")):
            rows, cols = values.shape
            values = values.reshape(rows // head_dim, head_dim // 2, 2, cols).transpose(0, 2, 1, 3).reshape(rows, cols)
        out[_rename(name, globals_, layers, "layers.", "model.layers.")] = np.ascontiguousarray(values)
    return out


def _rename(name: str, globals_: Mapping[str, str], layers: Mapping[str, str], prefix: str, new_prefix: str) -> str:
    if name in globals_:
        return globals_[name]
    layer, _, part = name.removeprefix(prefix).partition(".")
    return f"{new_prefix}{layer}.{layers[part]}"


def tiny_weights(n_kv_heads: int = 2, tied: bool = False, seed: int = 0, **sizes: int) -> dict[str, np.ndarray]:
    """float32 by GGUF name, every number one that float16 and bfloat16 hold too, so that lossless formats lose nothing."""
    weights = random_weights(**(SIZES | {"n_kv_heads": n_kv_heads} | sizes), tied=tied, seed=seed)
    return {
        name: (values.view(np.uint32) & 0xFFFF0000).view(np.float32).astype(np.float16).astype(np.float32)
        for name, values in weights.items()
    }


def hf_config(n_kv_heads: int = 2, tied: bool = False, **changes: Any) -> dict[str, Any]:
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": SIZES["dim"],
        "intermediate_size": SIZES["hidden_dim"],
        "num_hidden_layers": SIZES["n_layers"],
        "num_attention_heads": SIZES["n_heads"],
        "num_key_value_heads": n_kv_heads,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": tied,
        "vocab_size": len(TOKENS),
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
    }
    return {key: value for key, value in (config | changes).items() if value is not None}


def write_tokenizer_json(folder: Path) -> None:
    content = {
        "version": "1.0",
        "added_tokens": [{"id": n, "content": token, "special": True} for n, token in enumerate(SPECIAL_TOKENS)],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
        "post_processor": {"type": "ByteLevel"},
        "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": {token: n for n, token in enumerate(TOKENS)}, "merges": MERGES},
    }
    (folder / "tokenizer.json").write_text(json.dumps(content))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "chat_template": CHAT_TEMPLATE, "add_bos_token": False})
    )


def write_hf(
    folder: Path,
    weights: Mapping[str, np.ndarray],
    *,
    shards: int = 1,
    torch: bool = False,
    kind: str = "F32",
    head_dim: int = 16,
    **config: Any,
) -> Path:
    """A Hugging Face folder: safetensors or (with `torch`) pytorch_model files, single or sharded."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(hf_config(**config)))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 0]}))
    write_tokenizer_json(folder)
    tensors = to_hf(weights, head_dim)
    names = list(tensors)
    stem, suffix = ("pytorch_model", "bin") if torch else ("model", "safetensors")
    weight_map: dict[str, str] = {}
    for n in range(shards):
        part = {name: tensors[name] for name in names[n::shards]}
        name = f"{stem}.{suffix}" if shards == 1 else f"{stem}-{n + 1:05}-of-{shards:05}.{suffix}"
        weight_map |= dict.fromkeys(part, name)
        if torch:
            write_torch(folder / name, part, kind, parameter=n % 2 == 1)
        else:
            save_safetensors(folder / name, part, kind)
    if shards > 1:
        (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def save_safetensors(path: Path, tensors: Mapping[str, np.ndarray], kind: str = "F32") -> Path:
    """By the safetensors package; it knows no bfloat16 in NumPy, so such a header is rewritten."""
    from tests.reference.torch_writer import encode

    if kind == "BF16":
        raw = {name: np.frombuffer(encode(values, kind), np.uint16).reshape(values.shape) for name, values in tensors.items()}
        data = safetensors.numpy.save(raw)
        path.write_bytes(_rewrite(data))
    else:
        safetensors.numpy.save_file(
            {name: values.astype({"F32": np.float32, "F16": np.float16}[kind]) for name, values in tensors.items()}, path
        )
    return path


def _rewrite(data: bytes) -> bytes:
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length].replace(b'"U16"', b'"BF16"')
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def write_meta(
    folder: Path, weights: Mapping[str, np.ndarray], *, shards: int = 1, kind: str = "F32", embedding_axis: int = 1, **params: Any
) -> Path:
    """Meta's folder, cut for `shards` GPUs as fairscale does."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = to_meta(weights)
    n_kv_heads = tensors["layers.0.attention.wk.weight"].shape[0] // SIZES["head_dim"]
    content = {
        "dim": SIZES["dim"],
        "n_layers": 2,
        "n_heads": 4,
        "n_kv_heads": n_kv_heads,
        "multiple_of": 32,
        "norm_eps": 1e-5,
        "vocab_size": -1,
    }
    (folder / "params.json").write_text(json.dumps(content | {"max_seq_len": CONTEXT} | params))
    for n in range(shards):
        part = {"rope.freqs": np.zeros(8, np.float32)}
        for name, values in tensors.items():
            axis = embedding_axis if name == "tok_embeddings.weight" else int(name.endswith(COLUMNS))
            part[name] = values if values.ndim == 1 else np.ascontiguousarray(np.split(values, shards, axis)[n])
        write_torch(folder / f"consolidated.{n:02}.pth", part, kind)
    write_tokenizer_json(folder)
    return folder


def write_split(folder: Path, weights: Mapping[str, np.ndarray], n_kv_heads: int, parts: int) -> Path:
    """A GGUF in parts, as llama-gguf-split cuts it; the first one's path."""
    folder.mkdir(parents=True, exist_ok=True)
    names = list(weights)
    for n in range(parts):
        name = f"tiny-{n + 1:05}-of-{parts:05}.gguf"
        split: dict[str, Any] = {"split.no": n, "split.count": parts, "split.tensors.count": len(names)}
        mine = {key: weights[key] for key in names[n::parts]}
        if n == 0:
            make_tiny_gguf(folder / name, n_kv_heads=n_kv_heads, weights=mine, only=True, context_length=CONTEXT, overrides=split)
        else:
            writer = gguf.GGUFWriter(folder / name, "llama")
            for key, value in split.items():
                writer.add_uint32(key, value)
            for key, values in mine.items():
                writer.add_tensor(key, values)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
    return folder / f"tiny-00001-of-{parts:05}.gguf"
