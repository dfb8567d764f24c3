"""Adapters as llama.cpp keeps them: a GGUF of the type adapter, NAME.lora_a (r, in) and NAME.lora_b (out, r) of each tensor.

Format: src/llama-adapter.cpp of https://github.com/ggml-org/llama.cpp, and its converter. The scale is alpha / r; of token_embd A is
transposed.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from app.models.llama.checkpoint.checkpoint import adjacent_entries, expected_shapes
from app.models.llama.checkpoint.gguf import GGUFFile
from app.models.llama.checkpoint.names import GGUF_FUSED, canonical_from_gguf, gguf_from_canonical, split_layer
from app.models.llama.config import LlamaConfig
from app.models.llama.config_gguf import ARCHITECTURES
from app.models.llama.lora.adapter import EMBEDDING, HEAD, Adapter, AdapterError, LowRank, checked
from app.models.llama.sanitize import quoted

# transformers' model types → llama.cpp's architectures, where they differ
ARCHITECTURE_OF = {"mistral": "llama", "mixtral": "llama", "qwen3_moe": "qwen3moe", "gemma3_text": "gemma3", "cohere": "command-r"}
MAX_BYTES = 1 << 33  # of what is decoded


def architecture(config: LlamaConfig) -> str:
    return ARCHITECTURE_OF.get(config.architecture, config.architecture)


def _order(name: str, rows: int, config: LlamaConfig) -> np.ndarray | None:
    """Where each row of queries or keys comes from in a GGUF of this architecture."""
    if not ARCHITECTURES[architecture(config)].half_split or rows % config.head_dim:
        return None
    return adjacent_entries(name, rows, config.head_dim, config.rope_dim)


def read_gguf_adapter(path: Path, config: LlamaConfig) -> Adapter:
    """AdapterError or CheckpointError with one sentence about what is wrong."""
    file = GGUFFile.open(path)
    metadata, wanted = file.metadata, architecture(config)

    def fail(fault: str, mend: str = "convert it again with llama.cpp") -> AdapterError:
        return AdapterError(f"{path} {fault}; {mend}")

    if metadata.get("general.type") != "adapter":
        raise fail("is no adapter but a model (general.type)", "pass it as --model, or pass an adapter")
    if metadata.get("adapter.type") != "lora":
        raise fail(f"has the adapter.type {quoted(metadata.get('adapter.type'))}, where Townhall reads lora", "use a LoRA adapter")
    if metadata.get("general.architecture") != wanted:
        raise fail(
            f"is for the architecture {quoted(metadata.get('general.architecture'))}, where the model is {wanted}", "use its own base"
        )
    if metadata.get("adapter.alora.invocation_tokens") is not None:
        raise fail("asks for alora.invocation_tokens, which Townhall does not do", "train without it")
    alpha = metadata.get("adapter.lora.alpha", 0.0)
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not np.isfinite(alpha):
        raise fail(f"gives adapter.lora.alpha as {quoted(alpha)}, which is no number")
    if sum(4 * int(np.prod(info.shape, dtype=np.float64)) for info in file.tensors.values()) > MAX_BYTES:
        raise fail("decodes to more than any sound adapter has")
    parts: dict[str, dict[str, np.ndarray]] = {}
    for key in file.tensors:
        name, _, half = key.rpartition(".")
        if half not in ("lora_a", "lora_b"):
            raise fail(f"has the tensor {key}, which is no half of a low-rank change")
        parts.setdefault(name, {})[half] = file.dequantize(key)
    matrices: dict[str, LowRank] = {}
    for name, found in parts.items():
        if missing := {"lora_a", "lora_b"} - found.keys():
            raise fail(f"lacks {min(missing)} of {name}")
        a, b = found["lora_a"], found["lora_b"]
        a = np.ascontiguousarray(a.T) if name == "token_embd.weight" else a
        if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1]:
            raise fail(f"stores {name} as {b.shape} times {found['lora_a'].shape}, which do not go together")
        scale = float(alpha) / len(a) if alpha else 1.0
        if (pieces := _names(name, config)) is None:
            raise fail(f"changes {name}, which this model has not", "use the base that it was trained on")
        at, shapes = 0, expected_shapes(config)
        for canonical in pieces:
            rows = shapes[canonical][0] if len(pieces) > 1 else len(b)
            own = b[at : at + rows]
            order = _order(canonical, len(own), config)
            matrices[canonical] = LowRank(a, own if order is None else own[order], scale)
            at += rows
        if at != len(b):
            raise fail(f"stores {name}.lora_b with {len(b)} rows, where the model has {at}", "use the base that it was trained on")
    if not matrices:
        raise fail("holds no tensors")
    base = metadata.get("general.base_model.0.name", "")
    return checked(Adapter(matrices, base=base if isinstance(base, str) else "", path=str(path)), config)


def _names(name: str, config: LlamaConfig) -> tuple[str, ...] | None:
    """Of the matrices that llama.cpp keeps under a name: one, or several one below the other."""
    layer = split_layer(name, "blk.")
    if ARCHITECTURES[architecture(config)].fused and layer and layer[1] in GGUF_FUSED and int(layer[0]) < config.n_layers:
        return tuple(f"layers.{layer[0]}.{part}" for part in GGUF_FUSED[layer[1]])
    canonical = canonical_from_gguf(name)
    return None if canonical is None else (canonical,)


def write_gguf_adapter(adapter: Adapter, path: Path, config: LlamaConfig, kind: str = "F32") -> Path:
    """A file that llama.cpp's --lora loads, through a .part; `kind` is F32 or F16.

    llama.cpp knows one alpha, divided by each tensor's own rank: scales of other kinds (rslora, patterns) are folded into B.
    AdapterError for what such a file cannot say: magnitudes, replaced tensors, a change of an embedding that is the head as well.
    """
    import gguf

    def fail(what: str) -> AdapterError:
        return AdapterError(f"{path} cannot be written as a GGUF adapter: this one has {what}; merge it instead")

    if adapter.replaced or any(change.magnitude is not None for change in adapter.matrices.values()):
        raise fail("tensors that it replaces" if adapter.replaced else "magnitudes (DoRA)")
    if config.tied and (HEAD in adapter.matrices or EMBEDDING in adapter.matrices):
        # llama.cpp refuses the first, and ends while it lays out a pass with the second
        raise fail("a change of the embedding or of the output head, which are one in this model")
    first = next(iter(adapter.matrices.values()))
    alpha = first.scale * first.rank
    part = path.with_name(f"{path.name}.part")
    try:
        writer = gguf.GGUFWriter(part, architecture(config))
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", alpha)
        if adapter.base:
            writer.add_string("general.base_model.0.name", adapter.base)
            writer.add_uint32("general.base_model.count", 1)
        dtype = {"F32": np.float32, "F16": np.float16}[kind]
        for name, (a, b) in _tensors(adapter.matrices, config, alpha, fail).items():
            writer.add_tensor(f"{name}.lora_a", np.ascontiguousarray(a.T if name == "token_embd.weight" else a, dtype))
            writer.add_tensor(f"{name}.lora_b", np.ascontiguousarray(b, dtype))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        part.replace(path)
    except OSError as error:
        raise AdapterError(f"{path} cannot be written ({error.strerror}); make room or choose another place") from None
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return path


def _tensors(matrices: Mapping[str, LowRank], config: LlamaConfig, alpha: float, fail: object) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A and B under llama.cpp's names and in its order of rows, B such that alpha / r is the scale."""
    assert callable(fail)
    fused = ARCHITECTURES[architecture(config)].fused
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name, change in matrices.items():
        b = change.b
        if (order := _order(name, len(b), config)) is not None and name != EMBEDDING:
            b = b[np.argsort(order)]
        fold = change.scale * change.rank / alpha
        b = b if abs(fold - 1) < 1e-9 else b * np.float32(fold)
        part = name.split(".", 2)[-1]
        whole = next((key for key, names in GGUF_FUSED.items() if fused and part in names), None)
        if whole is None:
            found[gguf_from_canonical(name)] = change.a, b
            continue
        layer = name.split(".")[1]
        others = [matrices.get(f"layers.{layer}.{other}") for other in GGUF_FUSED[whole]]
        if any(other is None or not np.array_equal(other.a, change.a) for other in others):
            raise fail(f"changes of only a part of {whole}, or of its parts by different A")
        before = found.get(f"blk.{layer}.{whole}")
        found[f"blk.{layer}.{whole}"] = change.a, b if before is None else np.concatenate([before[1], b])
    return found
