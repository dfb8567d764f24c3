"""A LLaMA in one GGUF file."""

import dataclasses
import hashlib
from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import gguf
import numpy as np

from app.models.llama.checkpoint.checkpoint import expected_shapes
from app.models.llama.checkpoint.errors import CheckpointError
from app.models.llama.checkpoint.gguf import OTHER_TYPE, GGUFFile, TensorInfo
from app.models.llama.checkpoint.names import canonical_from_gguf
from app.models.llama.config import LlamaConfig
from app.models.llama.wording import quoted
from ext.tinygrad.kernels.matrix import QuantMatrix

if TYPE_CHECKING:
    from app.models.llama.tokenizer import Tokenizer

T = gguf.GGMLQuantizationType
# what the gguf package's dequantisers decode; I* and F64 are no weights, Q8_1 and Q8_K only activations
DECODABLE = {T.F32, T.F16, T.BF16, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.Q2_K, T.Q3_K, T.Q4_K, T.Q5_K, T.Q6_K, T.IQ4_NL, T.IQ4_XS}
DECODABLE |= {T.IQ1_S, T.IQ1_M, T.IQ2_XXS, T.IQ2_XS, T.IQ2_S, T.IQ3_XXS, T.IQ3_S, T.TQ1_0, T.TQ2_0, T.MXFP4}
# left by converters of 2023; llama.cpp computes the same table itself and skips them too
IGNORED_SUFFIXES = (".attn_rot_embd",)
SAMPLE_BYTES, SAMPLES = 1 << 16, 16


class GGUFCheckpoint:
    """`open` checks every tensor's presence, type and shape, so that nothing deeper meets a surprise."""

    def __init__(self, file: GGUFFile) -> None:
        self.file = file
        self.path: Path = file.path
        config = LlamaConfig.from_gguf(file.metadata, file.tensors.keys(), file.path)
        self._tensors = self._rename()
        self.config: LlamaConfig = self._settle_vocab(config)
        self._check()

    @classmethod
    def open(cls, path: Path | str) -> "GGUFCheckpoint":
        """Raises CheckpointError or ConfigError with one sentence about what is wrong with `path`."""
        return cls(GGUFFile.open(path))

    def _fail(self, fault: str, mend: str = "use a file that a current llama.cpp converted") -> CheckpointError:
        return CheckpointError(f"{self.path} {fault}; {mend}")

    def _rename(self) -> dict[str, TensorInfo]:
        if quoted(parts := self.file.metadata.get("split.count", 0)) not in ("0", "1"):
            raise self._fail(f"is one of {quoted(parts)} parts", "merge them with llama-gguf-split --merge")
        renamed: dict[str, TensorInfo] = {}
        for name, info in self.file.tensors.items():
            canonical = canonical_from_gguf(name)
            if canonical is not None:
                renamed[canonical] = info
            elif not name.endswith(IGNORED_SUFFIXES):
                # an extra bias or norm left out would change every answer without a word
                raise self._fail(f"carries the tensor {name}, which Townhall's LLaMA has no place for", "use a plain LLaMA")
        return renamed

    def _settle_vocab(self, config: LlamaConfig) -> LlamaConfig:
        """The embedding's rows count, not what the metadata says; but every id of the tokenizer needs a row."""
        embedding = self._tensors.get("tok_embeddings.weight")
        if embedding is None or len(embedding.shape) != 2:
            return config  # _check names the fault
        tokens = self.file.metadata.get("tokenizer.ggml.tokens")
        if isinstance(tokens, Sequence) and len(tokens) > embedding.shape[0]:
            raise self._fail(f"has {len(tokens):,} tokens but only {embedding.shape[0]:,} rows in its embedding")
        return dataclasses.replace(config, vocab_size=embedding.shape[0])

    def _check(self) -> None:
        expected = expected_shapes(self.config)
        if missing := [name for name in expected if name not in self._tensors]:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise self._fail(f"lacks the tensor {missing[0]}{more}")
        for name, info in self._tensors.items():
            if name not in expected:
                raise self._fail(f"carries the tensor {info.name}, but describes only {self.config.n_layers} layers")
            if info.shape != expected[name]:
                raise self._fail(f"stores {info.name} as {info.shape}, where its metadata needs {expected[name]}")
            if info.type not in DECODABLE:
                raise self._fail(f"stores {info.name} as {info.type.name}, which cannot be decoded", OTHER_TYPE)

    @property
    def tensor_names(self) -> Collection[str]:
        return self._tensors.keys()

    @cached_property
    def nbytes(self) -> int:
        return sum(info.nbytes for info in self._tensors.values())

    def matrix(self, name: str) -> QuantMatrix:
        info = self._tensors[name]
        rows, cols = info.shape
        return QuantMatrix(info.type.name, (rows, cols), self.file.raw(info.name))

    def vector(self, name: str) -> np.ndarray:
        return self.file.dequantize(self._tensors[name].name)

    def tokenizer(self) -> "Tokenizer":
        from app.models.llama.tokenizer import Tokenizer

        return Tokenizer.from_gguf(self.file.metadata, self.path)

    def fingerprint(self) -> str:
        """SHA-256 over the size, the whole header and blocks spread evenly over the data: about 3 MB of the default model's 98.

        Same bytes, same key, whatever the file's name or date. A change that misses every sampled block goes unseen: this is
        a key for caches, no proof of integrity.
        """
        file, digest = self.file, hashlib.sha256()
        digest.update(file.nbytes.to_bytes(8, "little"))
        digest.update(file.block(0, file.header_nbytes).data)
        span = max(file.nbytes - file.header_nbytes - SAMPLE_BYTES, 0)
        for n in range(SAMPLES):
            digest.update(file.block(file.header_nbytes + span * n // (SAMPLES - 1), SAMPLE_BYTES).data)
        return digest.hexdigest()
