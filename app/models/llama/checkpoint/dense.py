"""A LLaMA in a folder of float tensors, whatever wrote them: joined, reordered and padded only when a matrix is read."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from app.models.llama.checkpoint.checkpoint import StoredMatrix, adjacent_entries, expected_shapes, refuse_surplus_tokens
from app.models.llama.checkpoint.files import FLOATS, CheckpointError, StoredTensor
from app.models.llama.config import LlamaConfig
from app.models.llama.tokenizers.tokenizer_folder import TokenizerFiles, read_tokenizer_folder
from ext.tinygrad import pages
from ext.tinygrad.kernels.matrix import QuantMatrix

if TYPE_CHECKING:
    from app.models.llama.tokenizers.tokenizer import Tokenizer

SAMPLE_BYTES = 1 << 12  # of each tensor's both ends, for the fingerprint


@dataclass(frozen=True)
class Joined:
    """One tensor, from one file or cut along an axis into several."""

    parts: tuple[StoredTensor, ...]
    axis: int = 0

    @property
    def type(self) -> str:
        return self.parts[0].type

    @property
    def shape(self) -> tuple[int, ...]:
        shape = list(self.parts[0].shape)
        if len(self.parts) > 1:
            shape[self.axis] = sum(part.shape[self.axis] for part in self.parts)
        return tuple(shape)

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts)

    def rows(self, wanted: slice = slice(None)) -> np.ndarray:
        """uint8 (rows, row_bytes): a view of the file where there is one part, a copy of no more than is wanted where there are several."""
        if len(self.parts) == 1:
            return self.parts[0].rows()[wanted]
        if self.axis:
            return np.concatenate([part.rows()[wanted] for part in self.parts], axis=1)
        start, stop, _ = wanted.indices(self.shape[0])
        pieces, at = [], 0
        for part in self.parts:
            pieces.append(part.rows()[max(start - at, 0) : max(stop - at, 0)])
            at += part.shape[0]
        return np.concatenate(pieces)


class DenseCheckpoint:
    """Checked when it is made: presence, type and shape of every tensor."""

    def __init__(
        self,
        format: str,
        files: Sequence[Path],
        tokenizer_folder: Path,
        config: LlamaConfig,
        tensors: Mapping[str, Joined],
        half_split: bool,
        norm_offset: float = 0.0,
    ) -> None:
        """`half_split`: RoPE pairs entry i of a head with i + rope_dim / 2, as in Hugging Face's code; they are put side by side.

        `norm_offset` is what the stored weights of norms are short of (Gemma's are 1 less)."""
        self.format, self.files, self.folder = format, files, tokenizer_folder
        self.path, self.config, self.tensors = files[0].parent, config, tensors
        self.half_split, self.norm_offset = half_split, norm_offset
        expected = expected_shapes(config)
        if missing := [name for name in expected if name not in tensors]:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise self._fail(f"lacks the tensor {missing[0]}{more}")
        for name, tensor in tensors.items():
            if name not in expected:
                raise self._fail(f"carries the tensor {name}, but describes only {config.n_layers} layers")
            if tensor.shape != expected[name]:
                raise self._fail(f"stores {name} as {tensor.shape}, where its configuration needs {expected[name]}")
            if {part.type for part in tensor.parts} - {tensor.type} or tensor.type not in FLOATS:
                types = "/".join(sorted({part.type for part in tensor.parts}))
                raise self._fail(f"stores {name} as {types}, where Townhall reads {', '.join(FLOATS)}")

    def _fail(self, fault: str) -> CheckpointError:
        return CheckpointError(f"{self.path} {fault}; use a complete LLaMA checkpoint")

    @property
    def tensor_names(self) -> Collection[str]:
        return self.tensors.keys()

    @cached_property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def stored(self, name: str) -> StoredMatrix:
        tensor = self.tensors[name]
        return StoredMatrix(tensor.type, tensor.shape, tensor.nbytes)

    def token_roles(self) -> dict[str, dict[str, list[int]]]:
        return self.tokenizer_files.said

    def matrix(self, name: str, wanted: slice = slice(None)) -> QuantMatrix:
        tensor = self.tensors[name]
        rows, cols = tensor.shape
        order = self._order(name)
        data = tensor.rows(wanted) if order is None else tensor.rows()[order[wanted]]
        return QuantMatrix(tensor.type, (len(data), cols), data)

    def _order(self, name: str) -> np.ndarray | None:
        if not self.half_split:
            return None
        return adjacent_entries(name, self.tensors[name].shape[0], self.config.head_dim, self.config.rope_dim)

    def prefetch(self, name: str) -> None:
        for part in self.tensors[name].parts:
            pages.populate(part.data)

    def release(self, name: str) -> None:
        for part in self.tensors[name].parts:
            pages.release(part.data)

    def vector(self, name: str) -> np.ndarray:
        values = np.concatenate([part.float32() for part in self.tensors[name].parts])
        if self.norm_offset and name.endswith("norm.weight"):
            values = values + np.float32(self.norm_offset)
        order = self._order(name)
        return values if order is None else values[order]

    @cached_property
    def tokenizer_files(self) -> TokenizerFiles:
        return read_tokenizer_folder(self.folder)

    def tokenizer(self) -> "Tokenizer":
        from app.models.llama.tokenizers.tokenizer import Tokenizer

        files = self.tokenizer_files
        refuse_surplus_tokens(len(files.metadata["tokenizer.ggml.tokens"]), self.config.vocab_size, self.path)
        return Tokenizer.from_gguf(files.metadata, self.folder, files.stop_ids)

    @property
    def tokenizer_metadata(self) -> Mapping[str, object]:
        return self.tokenizer_files.metadata

    def fingerprint(self) -> str:
        """SHA-256 over the configuration and, of every tensor, its name, shape and both ends: some MB whatever the model's size.

        Same bytes, same key. A change in the middle of a tensor goes unseen: a key for caches, no proof of integrity.
        """
        digest = hashlib.sha256(repr((self.config, self.half_split)).encode())
        for name in sorted(self.tensors):
            tensor = self.tensors[name]
            digest.update(f"{name} {tensor.type} {tensor.shape}".encode())
            for part in tensor.parts:
                digest.update(part.data[:SAMPLE_BYTES].tobytes())
                digest.update(part.data[-SAMPLE_BYTES:].tobytes())
        return digest.hexdigest()


def joined(name: str, parts: Sequence[StoredTensor], full: tuple[int, ...], path: Path) -> Joined:
    """Shards of one tensor put together along whichever axis makes the shape `full`; equal copies count once."""
    first = parts[0]
    if len(parts) == 1 or first.shape == full:
        return Joined((first,))
    for axis in range(len(full)):
        whole = Joined(tuple(parts), axis)
        others = [part.shape[:axis] + part.shape[axis + 1 :] for part in parts if len(part.shape) == len(full)]
        if len(others) == len(parts) and set(others) == {full[:axis] + full[axis + 1 :]} and whole.shape == full:
            return whole
    shapes = " + ".join(str(shape) for shape in sorted({part.shape for part in parts}))
    raise CheckpointError(f"{path} cuts {name} into {len(parts)} times {shapes}, which do not make {full}; use all of its shards")
