"""What a checkpoint holds, as a person or a script wants to know before loading it."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.models.llama.checkpoint.checkpoint import Checkpoint
from app.models.llama.checkpoint.files import read_optional_json
from app.models.llama.sanitize import clipped
from app.models.llama.tokenizers.vocabulary import strings
from ext.tinygrad.kernels.packed.formats import NATIVE  # the others are decoded at load, and quantised again to Q8_0

DEFAULT_CONTEXT = 1024
BLOCK = 1 << 22


def inspect(checkpoint: Checkpoint) -> dict[str, Any]:
    """Everything but the digests, without reading tensor data; every value is one that JSON has."""
    config = checkpoint.config
    mix: dict[str, dict[str, int]] = {}
    parameters = 0
    for name in checkpoint.tensor_names:
        stored = checkpoint.stored(name)
        count = 1
        for n in stored.shape:
            count *= n
        parameters += count
        entry = mix.setdefault(stored.type, {"tensors": 0, "parameters": 0, "bytes": 0})
        for key, value in (("tensors", 1), ("parameters", count), ("bytes", stored.nbytes)):
            entry[key] += value
    cache = cache_bytes(checkpoint, 1)
    weights = sum(entry["bytes"] if kind in NATIVE else entry["parameters"] // 32 * 34 for kind, entry in mix.items())
    shown = min(DEFAULT_CONTEXT, config.context_length)
    return {
        "path": str(checkpoint.path),
        "format": checkpoint.format,
        "files": [{"name": path.name, "bytes": path.stat().st_size} for path in checkpoint.files],
        "name": clipped(config.name),
        "architecture": config.architecture,
        "parameters": parameters,
        "layers": config.n_layers,
        "dim": config.dim,
        "hidden_dim": config.hidden_dim,
        "heads": config.n_heads,
        "kv_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "tied": config.tied,
        "context_length": config.context_length,
        "sliding_window": max(config.traits.windows, default=0) or None,
        "rope_theta": config.rope_theta,
        "rope_scaled": bool(config.rope_factors),
        "requantised": sorted(kind for kind in mix if kind not in NATIVE),
        "types": dict(sorted(mix.items(), key=lambda item: -item[1]["bytes"])),
        "memory": {
            "weights": weights,
            "cache_per_token": cache,
            "context": shown,
            "total": weights + cache * shown,
            "total_at_full_context": weights + cache * config.context_length,
        },
        "vocabulary": _vocabulary(checkpoint),
        "licence": licence(checkpoint),
    }


def cache_bytes(checkpoint: Checkpoint, tokens: int) -> int:
    """Of a KV cache in the precision that the loader would choose."""
    c = checkpoint.config
    size = 4 if checkpoint.stored("tok_embeddings.weight").type == "F32" else 2
    return 2 * c.n_layers * c.n_kv_heads * c.head_dim * size * tokens


def _vocabulary(checkpoint: Checkpoint) -> dict[str, Any]:
    """Rows and ids of every source, and where they disagree; raises what opening the tokenizer raises, but for surplus tokens."""
    rows = checkpoint.stored("tok_embeddings.weight").shape[0]
    output = rows if checkpoint.config.tied else checkpoint.stored("output.weight").shape[0]
    metadata, roles = checkpoint.tokenizer_metadata, checkpoint.token_roles()
    tokens = strings(metadata.get("tokenizer.ggml.tokens"))
    size = len(tokens)

    def spell(n: int) -> str:
        return clipped(tokens[n], 40) if 0 <= n < size else "(none)"

    said = {source: {role: {str(n): spell(n) for n in ids} for role, ids in given.items()} for source, given in roles.items()}
    disagreements = []
    for role in ("bos", "eos", "pad"):
        answers = {source: tuple(given[role]) for source, given in roles.items() if role in given}
        if len(set(answers.values())) > 1:
            listed = ", ".join(f"{source} {'/'.join(map(str, ids))}" for source, ids in answers.items())
            disagreements.append(f"{role}: {listed}" + ("; each of them ends an answer" if role == "eos" else ""))
    if size < rows:
        disagreements.append(f"{rows - size} rows of the embedding have no token; they are never sampled")
    if size > rows:
        disagreements.append(f"{size - rows} tokens have no row in the embedding; this cannot be loaded")
    result: dict[str, Any] = {
        "kind": {"gpt2": "byte-level BPE", "llama": "SentencePiece"}.get(str(metadata.get("tokenizer.ggml.model")), "unknown"),
        "tokens": size,
        "embedding_rows": rows,
        "output_rows": output,
        "added_tokens": {str(n): clipped(token, 40) for n, token in getattr(_files(checkpoint), "added", {}).items()},
        "sources": said,
        "disagreements": disagreements,
        "stop": {},
        "chat_template": None,
    }
    if size <= rows:
        tokenizer = checkpoint.tokenizer()
        result["stop"] = {str(n): spell(n) for n in sorted(tokenizer.stop_ids)}
        result["chat_template"] = tokenizer.chat_template
    return result


def _files(checkpoint: Checkpoint) -> object:
    return getattr(checkpoint, "tokenizer_files", None)


def licence(checkpoint: Checkpoint) -> str | None:
    """As the GGUF, the model card's front matter or a licence file says."""
    if isinstance(named := getattr(getattr(checkpoint, "file", None), "metadata", {}).get("general.license"), str):
        return clipped(named)
    folder = checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent
    card = folder / "README.md"
    if checkpoint.path.is_dir() and card.is_file():
        with card.open("rb") as file:
            text = file.read(1 << 16).decode("utf-8", "replace")
        if match := re.search(r"^license(?:_name)?:[ \t]*(\S.*)$", text, re.MULTILINE):
            return clipped(match[1])
    if isinstance(named := read_optional_json(folder / "config.json").get("license"), str) and checkpoint.path.is_dir():
        return clipped(named)
    for name in ("LICENSE", "LICENSE.txt", "LICENSE.md", "USE_POLICY.md"):
        if checkpoint.path.is_dir() and (folder / name).is_file():
            return f"see {name}"
    return None


def sha256(path: Path, on_bytes: Callable[[int], object] = lambda n: None) -> str:
    """Digest of a whole file; `on_bytes` hears of every block read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            on_bytes(len(block))
    return digest.hexdigest()
