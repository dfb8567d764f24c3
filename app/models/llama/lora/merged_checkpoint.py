"""A checkpoint with adapters merged into it: its matrices in float32 where one changes them, computed when they are read."""

import hashlib
import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from app.models.llama.checkpoint.checkpoint import Checkpoint, DerivedCheckpoint, StoredMatrix, expected_shapes
from app.models.llama.lora.adapter import EMBEDDING, HEAD, Adapter, AdapterError, checked
from ext.tinygrad.kernels.matrix import QuantMatrix

if TYPE_CHECKING:
    pass


def refuse_conflicts(adapters: Sequence[tuple[Adapter, float]]) -> None:
    """What an adapter replaces whole can neither be scaled nor come from two: AdapterError."""
    seen: dict[str, str] = {}
    for adapter, scale in adapters:
        for name in adapter.replaced:
            if scale not in (0, 1):
                raise AdapterError(
                    f"{adapter.path or 'an adapter'} replaces {name} whole, so that its scale can be 0 or 1 and not {scale:g}"
                )
        for name in adapter.replaced if scale else ():
            if name in seen:
                raise AdapterError(f"{adapter.path} and {seen[name]} both replace {name}; use one of them")
            seen[name] = adapter.path


class MergedCheckpoint(DerivedCheckpoint):
    """A Checkpoint over another one. Where the head is the embedding, and only one of them is changed, they are two from then on."""

    def __init__(self, source: Checkpoint, adapters: Sequence[tuple[Adapter, float]]) -> None:
        """AdapterError for an adapter that does not fit, and two that replace one tensor."""
        super().__init__(source)
        self.adapters = [(checked(adapter, source.config), scale) for adapter, scale in adapters if scale]
        refuse_conflicts(self.adapters)
        self._kept: dict[str, np.ndarray] = {}  # the last one: a matrix is read some rows at a time
        self.format = f"{source.format}, with {len(self.adapters)} adapters merged"
        ends = {name for adapter, _ in self.adapters for name in (*adapter.matrices, *adapter.replaced) if name in (EMBEDDING, HEAD)}
        self._untied = source.config.tied and bool(ends)
        self.config = replace(source.config, tied=source.config.tied and not ends)

    @property
    def tensor_names(self) -> Collection[str]:
        return expected_shapes(self.config).keys()

    def source_name(self, name: str) -> str:
        return EMBEDDING if name == HEAD and self._untied else name

    def _is_changed(self, name: str) -> bool:
        return any(name in adapter.matrices or name in adapter.replaced for adapter, _ in self.adapters)

    @cached_property
    def nbytes(self) -> int:
        return sum(self.stored(name).nbytes for name in self.tensor_names)

    def stored(self, name: str) -> StoredMatrix:
        stored = self.source.stored(self.source_name(name))
        return StoredMatrix("F32", stored.shape, 4 * math.prod(stored.shape)) if self._is_changed(name) else stored

    def matrix(self, name: str, wanted: slice = slice(None)) -> QuantMatrix:
        if not self._is_changed(name):
            return self.source.matrix(self.source_name(name), wanted)
        values = self._values(name)[wanted]
        return QuantMatrix("F32", (values.shape[0], values.shape[1]), np.ascontiguousarray(values).view(np.uint8))

    def _values(self, name: str) -> np.ndarray:
        """float32."""
        if name not in self._kept:
            self._kept.clear()
            base = self.source.matrix(self.source_name(name)).dequantize()
            for adapter, _ in self.adapters:
                base = adapter.replaced.get(name, base)
            values = base
            for adapter, scale in self.adapters:
                if (change := adapter.matrices.get(name)) is not None:
                    values = values + (change.merged(base.T, scale).T if name == EMBEDDING else change.merged(base, scale)) - base
            self._kept[name] = np.ascontiguousarray(values, np.float32)
        return self._kept[name]

    def release(self, name: str) -> None:
        super().release(name)
        self._kept.pop(name, None)

    def vector(self, name: str) -> np.ndarray:
        for adapter, _ in self.adapters:
            if name in adapter.replaced:
                return adapter.replaced[name]
        return self.source.vector(name)

    def fingerprint(self) -> str:
        text = self.source.fingerprint() + "".join(f" {adapter.digest} {scale!r}" for adapter, scale in self.adapters)
        return hashlib.sha256(text.encode()).hexdigest()
