"""A LLaMA in a GGUF file, or in the parts that llama-gguf-split makes (NAME-00001-of-0000N.gguf, metadata in the first)."""

import dataclasses
import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from app.models.llama.checkpoint.checkpoint import StoredMatrix, adjacent_entries, expected_shapes, refuse_surplus_tokens
from app.models.llama.checkpoint.files import CheckpointError
from app.models.llama.checkpoint.ggml import QuantType as T
from app.models.llama.checkpoint.gguf import OTHER_TYPE, GGUFFile, TensorInfo
from app.models.llama.checkpoint.names import COMPUTED, GGUF_FUSED, canonical_from_gguf, split_layer
from app.models.llama.config import LlamaConfig
from app.models.llama.config_gguf import architecture_of, config_from_gguf
from app.models.llama.sanitize import quoted
from app.models.llama.traits import LongRope
from ext.tinygrad import pages
from ext.tinygrad.kernels.matrix import QuantMatrix

if TYPE_CHECKING:
    from app.models.llama.tokenizers.tokenizer import Tokenizer


PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
MAX_PARTS = 1 << 10


def open_parts(path: Path) -> list[GGUFFile]:
    """Every part in order, whichever of them `path` is; a whole file is its only part. CheckpointError for a missing or foreign part."""
    given = GGUFFile.open(path)
    count = _number(given, "split.count", 1)
    if count <= 1:
        return [given]
    match = PART.fullmatch(path.name)
    if count > MAX_PARTS or match is None or int(match[3]) != count:
        names = f"NAME-00001-of-{min(count, 99_999):05}.gguf"
        raise CheckpointError(f"{path} is one of {count:,} parts, but is not called {names}; give all parts the names they had")
    parts = []
    for n in range(count):
        name = f"{match[1]}-{n + 1:05}-of-{count:05}.gguf"
        if name == path.name:
            part = given
        elif (path.parent / name).exists():
            part = GGUFFile.open(path.parent / name)
        else:
            raise CheckpointError(f"{path.parent} lacks {name}, one of the model's {count} parts; download what is missing")
        number, of = _number(part, "split.no", -1), _number(part, "split.count", 1)
        if (number, of) != (n, count):
            raise CheckpointError(f"{part.path} says that it is part {number + 1} of {of}; give all parts the names they had")
        parts.append(part)
    declared, found = _number(parts[0], "split.tensors.count", -1), sum(len(part.tensors) for part in parts)
    if declared not in (-1, found):
        raise CheckpointError(f"{path} belongs to a model of {declared:,} tensors, but its parts hold {found:,}; download them again")
    return parts


def tensors_of(parts: list[GGUFFile]) -> dict[str, tuple[GGUFFile, TensorInfo]]:
    """Where each tensor lies."""
    tensors: dict[str, tuple[GGUFFile, TensorInfo]] = {}
    for part in parts:
        for name, info in part.tensors.items():
            if name in tensors:
                raise CheckpointError(f"{part.path} holds the tensor {name}, which {tensors[name][0].path.name} has too; download it again")
            tensors[name] = part, info
    return tensors


def _number(file: GGUFFile, key: str, default: int) -> int:
    value = file.metadata.get(key, default)
    if type(value) is not int:
        raise CheckpointError(f"{file.path} gives {key} as {quoted(value)}; download it again")
    return value


# what the gguf package's dequantisers decode; I* and F64 are no weights, Q8_1 and Q8_K only activations
DECODABLE = {T.F32, T.F16, T.BF16, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.Q2_K, T.Q3_K, T.Q4_K, T.Q5_K, T.Q6_K, T.IQ4_NL, T.IQ4_XS}
DECODABLE |= {T.IQ1_S, T.IQ1_M, T.IQ2_XXS, T.IQ2_XS, T.IQ2_S, T.IQ3_XXS, T.IQ3_S, T.TQ1_0, T.TQ2_0, T.MXFP4}
SAMPLE_BYTES, SAMPLES = 1 << 16, 16
OTHER_MODEL = "use another model, or one that a current llama.cpp converted"


@dataclass(frozen=True)
class TensorPlace:
    """Where a tensor of the model lies: a tensor of a file, or some of its rows. Experts count as rows, one after another."""

    file: GGUFFile
    info: TensorInfo
    rows: slice = field(default_factory=lambda: slice(None))

    @property
    def shape(self) -> tuple[int, ...]:
        whole = self.info.shape
        whole = (whole[0] * whole[1], whole[2]) if len(whole) == 3 else whole
        return (len(range(whole[0])[self.rows]), *whole[1:]) if whole else whole

    @property
    def nbytes(self) -> int:
        return self.info.nbytes if self.rows == slice(None) else self.raw().nbytes

    def raw(self) -> np.ndarray:
        """uint8 (rows, row bytes): a view of the file."""
        return self.file.raw(self.info.name).reshape(-1, self.file.raw(self.info.name).shape[-1])[self.rows]


class GGUFCheckpoint:
    """`open` checks every tensor's presence, type and shape, so that nothing deeper meets a surprise."""

    def __init__(self, parts: list[GGUFFile]) -> None:
        self.parts, self.file = parts, parts[0]
        self.path: Path = self.file.path
        stored = tensors_of(parts)
        config = config_from_gguf(self.file.metadata, stored.keys(), self.path)
        self.architecture = architecture_of(self.file.metadata, self.path)[1]
        config = self._stretch(config, stored)
        self._tensors = self._rename(stored, config)
        self.config: LlamaConfig = self._settle_vocab(config)
        self._check()

    @classmethod
    def open(cls, path: Path | str) -> "GGUFCheckpoint":
        """Raises CheckpointError or ConfigError with one sentence about what is wrong with `path`."""
        return cls(open_parts(Path(path)))

    def _fail(self, fault: str, mend: str = "use a file that a current llama.cpp converted") -> CheckpointError:
        return CheckpointError(f"{self.path} {fault}; {mend}")

    def _stretch(self, config: LlamaConfig, stored: dict[str, tuple[GGUFFile, TensorInfo]]) -> LlamaConfig:
        """What each of RoPE's frequencies is divided by, as tensors: LLaMA 3.1's factors, and LongRoPE's short and long ones."""
        plain, short, long = (stored.pop(f"rope_{name}.weight", None) for name in ("freqs", "factors_short", "factors_long"))
        if plain is not None:
            return dataclasses.replace(config, rope_factors=self._factors(config, *plain))
        if short is None or long is None:
            return config
        original = self.file.metadata.get(f"{config.architecture}.rope.scaling.original_context_length")
        if type(original) is not int or original < 1:
            raise self._fail(f"gives no {config.architecture}.rope.scaling.original_context_length for its two sets of RoPE's factors")
        long_rope = LongRope(original, self._factors(config, *long))
        traits = dataclasses.replace(config.traits, long_rope=long_rope)
        return dataclasses.replace(config, rope_factors=self._factors(config, *short), traits=traits)

    def _factors(self, config: LlamaConfig, file: GGUFFile, info: TensorInfo) -> tuple[float, ...]:
        if info.shape != (config.rope_dim // 2,) or info.type not in DECODABLE:
            raise self._fail(f"stores {info.name} as {info.shape} in {info.type.name}, where its metadata needs ({config.rope_dim // 2},)")
        values = file.dequantize(info.name)
        if not (np.isfinite(values) & (values > 0)).all():
            raise self._fail(f"holds numbers in {info.name} that no frequency can be divided by", "download it again")
        if config.rope_factors:
            raise self._fail(f"asks for rope scaling in its metadata and in {info.name}, which contradict each other")
        return tuple(values.tolist())

    def _rename(self, stored: dict[str, tuple[GGUFFile, TensorInfo]], config: LlamaConfig) -> dict[str, TensorPlace]:
        renamed: dict[str, TensorPlace] = {}
        for name, (file, info) in stored.items():
            layer = split_layer(name, "blk.")
            if self.architecture.fused and layer and layer[1] in GGUF_FUSED:
                renamed |= self._parts(layer[0], GGUF_FUSED[layer[1]], config, file, info)
            elif (canonical := canonical_from_gguf(name)) is not None:
                renamed[canonical] = TensorPlace(file, info)
            elif not name.endswith(COMPUTED):
                # an extra bias or norm left out would change every answer without a word
                raise self._fail(
                    f"carries the tensor {name}, which Townhall has no place for in the architecture {config.architecture}", OTHER_MODEL
                )
        return renamed

    def _parts(self, layer: str, names: Sequence[str], config: LlamaConfig, file: GGUFFile, info: TensorInfo) -> dict[str, TensorPlace]:
        """A tensor that holds several, one below the other."""
        sizes = {"wq": config.n_heads * config.head_dim, "wk": config.n_kv_heads * config.head_dim, "w1": config.hidden_dim}
        sizes |= {"wv": sizes["wk"], "w3": sizes["w1"]}
        rows = [sizes[name.split(".")[1]] for name in names]
        if not info.shape or info.shape[0] != sum(rows):
            raise self._fail(f"stores {info.name} as {info.shape}, where its metadata needs {sum(rows)} rows")
        found, start = {}, 0
        for name, n in zip(names, rows, strict=True):
            found[f"layers.{layer}.{name}"] = TensorPlace(file, info, slice(start, start + n))
            start += n
        return found

    def _settle_vocab(self, config: LlamaConfig) -> LlamaConfig:
        """The embedding's rows count, not what the metadata says; but every id of the tokenizer needs a row."""
        if "tok_embeddings.weight" not in self._tensors or len(shape := self._tensors["tok_embeddings.weight"].shape) != 2:
            return config  # _check names the fault
        tokens = self.file.metadata.get("tokenizer.ggml.tokens")
        if isinstance(tokens, Sequence):
            refuse_surplus_tokens(len(tokens), shape[0], self.path)
        return dataclasses.replace(config, vocab_size=shape[0])

    def _check(self) -> None:
        expected = expected_shapes(self.config)
        if missing := [name for name in expected if name not in self._tensors]:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise self._fail(f"lacks the tensor {missing[0]}{more}")
        for name, place in self._tensors.items():
            info = place.info
            if name not in expected and name.startswith("layers.") and int(name.split(".")[1]) >= self.config.n_layers:
                raise self._fail(f"carries the tensor {info.name}, but describes only {self.config.n_layers} layers")
            if name not in expected:
                raise self._fail(
                    f"carries the tensor {info.name}, which Townhall has no place for in the architecture {self.config.architecture}",
                    OTHER_MODEL,
                )
            if place.shape != expected[name]:
                raise self._fail(f"stores {info.name} as {info.shape}, where its metadata needs {expected[name]}")
            if info.type not in DECODABLE:
                raise self._fail(f"stores {info.name} as {info.type.name}, which cannot be decoded", OTHER_TYPE)

    @property
    def tensor_names(self) -> Collection[str]:
        return self._tensors.keys()

    @cached_property
    def nbytes(self) -> int:
        return sum(place.info.nbytes for place in {place.info.name: place for place in self._tensors.values()}.values())

    @property
    def format(self) -> str:
        return f"GGUF version {self.file.version}" + (f" in {len(self.parts)} parts" if len(self.parts) > 1 else "")

    @property
    def files(self) -> list[Path]:
        return [part.path for part in self.parts]

    def stored(self, name: str) -> StoredMatrix:
        place = self._tensors[name]
        return StoredMatrix(place.info.type.name, place.shape, place.nbytes)

    def token_roles(self) -> dict[str, dict[str, list[int]]]:
        keys = {"bos": "bos", "eos": "eos", "eot": "eot", "eom": "eom", "pad": "padding"}
        ids = {role: self.file.metadata.get(f"tokenizer.ggml.{key}_token_id") for role, key in keys.items()}
        return {"GGUF metadata": {role: [n] for role, n in ids.items() if type(n) is int}}

    def matrix(self, name: str, wanted: slice = slice(None)) -> QuantMatrix:
        place = self._tensors[name]
        order = self._order(name)
        data = place.raw()[wanted] if order is None else place.raw()[order[wanted]]
        return QuantMatrix(place.info.type.name, (len(data), place.shape[1]), data)

    def _order(self, name: str) -> np.ndarray | None:
        if not self.architecture.half_split:
            return None
        return adjacent_entries(name, self._tensors[name].shape[0], self.config.head_dim, self.config.rope_dim)

    def prefetch(self, name: str) -> None:
        pages.populate(self._tensors[name].raw())

    def release(self, name: str) -> None:
        pages.release(self._tensors[name].raw())

    def vector(self, name: str) -> np.ndarray:
        place = self._tensors[name]
        values, order = place.file.dequantize(place.info.name)[place.rows], self._order(name)
        return values if order is None else values[order]

    def tokenizer(self) -> "Tokenizer":
        from app.models.llama.tokenizers.tokenizer import Tokenizer

        return Tokenizer.from_gguf(self.file.metadata, self.path)

    @property
    def tokenizer_metadata(self) -> Mapping[str, Any]:
        return {key: value for key, value in self.file.metadata.items() if key.startswith("tokenizer.")}

    def fingerprint(self) -> str:
        """SHA-256 over the size, the whole header and blocks spread evenly over the data: about 3 MB of the default model's 98.

        Same bytes, same key, whatever the file's name or date. A change that misses every sampled block goes unseen: this is
        a key for caches, no proof of integrity.
        """
        digest = hashlib.sha256()
        for file in self.parts:
            digest.update(file.nbytes.to_bytes(8, "little"))
            digest.update(file.block(0, file.header_nbytes).data)
            span = max(file.nbytes - file.header_nbytes - SAMPLE_BYTES, 0)
            for n in range(SAMPLES):
                digest.update(file.block(file.header_nbytes + span * n // (SAMPLES - 1), SAMPLE_BYTES).data)
        return digest.hexdigest()


def gguf_files(folder: Path) -> list[Path]:
    """The GGUF models in a folder, of each split one only its first part."""
    return [path for path in sorted(folder.glob("*.gguf")) if not ((match := PART.fullmatch(path.name)) and match[2] != "00001")]
