"""Any checkpoint to one GGUF file, quantised on the way, a few million weights at a time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from app.models.llama.checkpoint.checkpoint import Checkpoint
from app.models.llama.checkpoint.cores import cores
from app.models.llama.checkpoint.files import CheckpointError
from app.models.llama.checkpoint.gguf_plan import Plan, plan_gguf, write_config
from app.models.llama.checkpoint.inspection import licence
from app.models.llama.checkpoint.truncated_file import report_truncation
from app.models.llama.tokenizers.added_tokens import MATCH_KEYS
from app.models.llama.tokenizers.sentencepiece import merges_are_scores
from app.models.llama.tokenizers.vocabulary import (
    EACH,
    LEFT_OUT,
    MERGES,
    NORMALIZER,
    SPACE_AT_START_ONLY,
    SPACE_WHERE_ABSENT,
    SPLIT_AT_SPACES,
    UNKNOWN_CHARACTERS,
    WHOLE_PIECES_FIRST,
)

T = gguf.GGMLQuantizationType
FILE_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q8_0": 7, "q4_k": 14, "bf16": 32}  # llama.cpp's llama_ftype
# what a matrix becomes whose rows do not fill the blocks of the type that was asked for
NARROWER = {T.Q4_K: T.Q4_1, T.Q4_0: T.F16, T.Q4_1: T.F16, T.Q8_0: T.F16}
OnBytes = Callable[[int], object]


def convert(checkpoint: Checkpoint, target: Path, kind: str, on_bytes: OnBytes = lambda n: None) -> Path:
    """Write `target` through a .part beside it; `kind` is a key of FILE_TYPES. `on_bytes` counts bytes of the source.

    Norms stay float32; quantising to four bits leaves embedding and output head at Q8_0, where errors are heard most.
    """
    if target.is_dir():
        raise CheckpointError(f"{target} is a folder; pass the name of the GGUF file to write")
    if any(target.exists() and target.samefile(path) for path in checkpoint.files):
        raise CheckpointError(f"{target} is the checkpoint itself; write to another file")
    if target.exists() and not _replaceable(target):
        raise CheckpointError(f"{target} is there and is no GGUF file; pass another name, or remove it first")
    part = target.with_name(f"{target.name}.part")
    plan = plan_gguf(checkpoint)
    try:
        writer = gguf.GGUFWriter(part, plan.architecture)
        try:
            with report_truncation(checkpoint.files, part):
                writer.add_name(checkpoint.config.name or checkpoint.path.stem)
                if found := licence(checkpoint):
                    writer.add_license(found)
                writer.add_file_type(FILE_TYPES[kind])
                writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
                write_config(writer, checkpoint.config)
                for key, value in _vocabulary(checkpoint).items():
                    _add(writer, key, value)
                _write_tensors(writer, plan, kind, on_bytes)
        finally:
            writer.close()
        part.replace(target)
    except OSError as error:
        raise CheckpointError(f"{target} cannot be written ({error.strerror}); make room or choose another place") from None
    finally:
        with suppress(OSError):  # a folder of that name, or none where it could be: the error before said so
            part.unlink(missing_ok=True)
    return target


def _replaceable(target: Path) -> bool:
    """An older result, or an empty file: never a device, a pipe, or something else of the model's."""
    if not target.is_file():
        return False
    with target.open("rb") as file:
        return file.read(4) in (b"", b"GGUF")


def _type(name: str, shape: tuple[int, ...], kind: str) -> gguf.GGMLQuantizationType:
    if len(shape) == 1 or name.endswith("ffn_gate_inp.weight"):  # norms, biases, and a router, which llama.cpp wants as floats
        return T.F32
    wanted = getattr(T, kind.upper())
    if name in ("token_embd.weight", "output.weight") and wanted in (T.Q4_0, T.Q4_1, T.Q4_K):
        wanted = T.Q8_0
    while shape[-1] % gguf.GGML_QUANT_SIZES[wanted][0]:
        wanted = NARROWER[wanted]
    return wanted


def _vocabulary(checkpoint: Checkpoint) -> dict[str, Any]:
    """As many tokens as the embedding has rows, which llama.cpp expects; ends that have no key of their own find one."""
    metadata: dict[str, Any] = dict(checkpoint.tokenizer_metadata)
    tokenizer = checkpoint.tokenizer()
    tokens, rows = list(metadata["tokenizer.ggml.tokens"]), checkpoint.config.vocab_size
    missing = rows - len(tokens)
    metadata["tokenizer.ggml.tokens"] = tokens + [f"[PAD{n}]" for n in range(len(tokens), rows)]
    for key, filler in (("token_type", int(gguf.TokenType.UNUSED)), ("scores", -1000.0)):
        values = metadata.get(f"tokenizer.ggml.{key}")
        if values is not None and missing:
            metadata[f"tokenizer.ggml.{key}"] = np.concatenate([values, np.full(missing, filler, values.dtype)])
    if MERGES in metadata and merges_are_scores(metadata)[1]:
        del metadata[MERGES]
    ends = [f"tokenizer.ggml.{key}_token_id" for key in ("eos", "eot", "eom")]
    ordinary = set(tokens) - tokenizer.special_ids.keys()
    others = sorted(tokenizer.stop_ids - {metadata.get(key) for key in ends}, key=lambda n: (tokens[n] in ordinary, n))
    for key in ends:
        if key not in metadata and others:
            metadata[key] = others.pop(0)
    return metadata


def unsaid(checkpoint: Checkpoint) -> list[str]:
    """What the checkpoint's tokenizer does that GGUF cannot say, so that llama.cpp tokenises a converted file otherwise.

    Townhall reads it from keys of its own.
    """
    metadata = checkpoint.tokenizer_metadata
    rules = {str(rule.name).lower(): len(ids) for rule, key in MATCH_KEYS.items() if isinstance(ids := metadata.get(key), np.ndarray)}
    if NORMALIZER not in metadata and metadata.get("tokenizer.ggml.model") == "gpt2":
        rules.pop("normalized", None)  # by nothing
    spaced, unknown = metadata.get("tokenizer.ggml.add_space_prefix", True), metadata.get(UNKNOWN_CHARACTERS)
    unknown = unknown if isinstance(unknown, str) else None
    said = [
        (NORMALIZER in metadata, f"normalises text by {metadata.get(NORMALIZER)}"),
        (bool(metadata.get("tokenizer.ggml.remove_extra_whitespaces")), "takes several spaces for one"),
        (bool(spaced) and metadata.get(SPACE_AT_START_ONLY) is True, "puts its space before the first word only"),
        (bool(spaced) and metadata.get(SPACE_WHERE_ABSENT) is True, "puts no space before one that is there"),
        (metadata.get(SPLIT_AT_SPACES) is True, "merges nothing over a space"),
        (MERGES in metadata and not merges_are_scores(metadata)[0], "merges by a list that no scores express"),
        (unknown == EACH, "has a token for each unknown character"),
        (unknown == LEFT_OUT, "leaves unknown characters out"),
        (isinstance(metadata.get(WHOLE_PIECES_FIRST), bool), f"has ignore_merges as {metadata.get(WHOLE_PIECES_FIRST)}"),
        (bool(rules), "has added tokens with " + ", ".join(f"{rule} ({count})" for rule, count in rules.items())),
    ]
    return [rule for holds, rule in said if holds]


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    kinds = gguf.GGUFValueType
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, np.ndarray):
        item = kinds.FLOAT32 if value.dtype.kind == "f" else kinds.INT32
        writer.add_key_value(key, value.tolist(), kinds.ARRAY, item)
    elif isinstance(value, Sequence | Mapping) and len(value):
        writer.add_key_value(key, list(value), kinds.ARRAY, kinds.STRING)


def _write_tensors(writer: gguf.GGUFWriter, plan: Plan, kind: str, on_bytes: OnBytes) -> None:
    types = [_type(tensor.name, tensor.shape, kind) for tensor in plan.tensors]
    for name, values in plan.computed.items():
        writer.add_tensor_info(name, values.shape, values.dtype, values.nbytes, T.F32)
    for tensor, wanted in zip(plan.tensors, types, strict=True):
        size, per_block = gguf.GGML_QUANT_SIZES[wanted]
        nbytes = int(np.prod(tensor.shape)) // size * per_block
        raw = (*tensor.shape[:-1], tensor.shape[-1] // size * per_block)  # as bytes: the writer turns them into the tensor's shape
        plain = wanted == T.F32
        dtype = np.dtype(np.float32 if plain else np.uint8)
        writer.add_tensor_info(tensor.name, tensor.shape if plain else raw, dtype, nbytes, wanted)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    assert writer.fout is not None
    out, begun = writer.fout[0], writer.fout[0].tell()
    out.write(bytes(-begun % writer.data_alignment))

    def put(blocks: Iterator[np.ndarray]) -> None:
        total = 0
        for block in blocks:
            out.write(block.data)
            total += block.nbytes
        out.write(bytes(-total % writer.data_alignment))

    for values in plan.computed.values():
        put(iter([values]))
    with ThreadPoolExecutor(cores()) as pool:
        for tensor, wanted in zip(plan.tensors, types, strict=True):
            put(tensor.blocks(wanted, pool))
            for name in tensor.parts:
                on_bytes(plan.checkpoint.stored(name).nbytes)
                plan.checkpoint.release(name)
