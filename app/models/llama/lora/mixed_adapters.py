"""Several sets of adapters over one base as one transformer, for passes whose rows go through a set each."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from tinygrad import Tensor

from app.models.llama.transformer import Block, Transformer
from ext.tinygrad import buffers
from ext.tinygrad.kernels.low_rank import AdaptedWeight
from ext.tinygrad.kernels.protocol import PackedWeight
from ext.tinygrad.kernels.row_changes import MOST_ROWS, RowAdaptedWeight

MATRICES = ("wq", "wk", "wv", "wo", "w1", "w2", "w3")


class MixedAdapters:
    """`model` shares every buffer of `base` and of the models that adapters over it make; `choose` says which row goes through which."""

    def __init__(self, base: Transformer, models: Sequence[Transformer], device: str):
        """`mixes` holds for each of `models`."""
        self._numbers = {id(base): -1} | {id(model): n for n, model in enumerate(models)}
        self._models = (base, *models)  # ids stay theirs
        self._rows = np.full(MOST_ROWS, -1, np.int32)
        self._sets = buffers.upload(self._rows, device)
        blocks = (self._block(block, [model.blocks[i] for model in models]) for i, block in enumerate(base.blocks))
        self.model = replace(base, blocks=tuple(blocks), output=self._matrix(base.output, [model.output for model in models]))

    def _block(self, base: Block, blocks: Sequence[Block]) -> Block:
        fields: dict[str, Any] = {name: self._matrix(getattr(base, name), [getattr(block, name) for block in blocks]) for name in MATRICES}
        return replace(base, **fields)

    def _matrix(self, base: PackedWeight, weights: Sequence[PackedWeight]) -> PackedWeight:
        changes = [weight if isinstance(weight, AdaptedWeight) else None for weight in weights]
        return RowAdaptedWeight.of(base, changes, self._sets) if any(changes) else base

    def takes(self, model: Transformer) -> bool:
        """Is it the base, or one of the models?"""
        return id(model) in self._numbers

    def choose(self, models: Sequence[Transformer]) -> None:
        """The model of each row of the next pass: the base, or one of the models."""
        self._rows[:] = -1
        self._rows[: len(models)] = [self._numbers[id(model)] for model in models]
        buffers.write(self._sets, self._rows)


def mixes(base: Transformer, model: Transformer) -> bool:
    """Do they differ in nothing but low-rank changes of blocks and head? Replaced tensors and changed embeddings are more."""
    pairs = [(base.output, model.output)]
    vectors = [(base.norm.tensors, model.norm.tensors)]
    for one, other in zip(base.blocks, model.blocks, strict=True):
        pairs += zip(one.matrices, other.matrices, strict=True)
        vectors.append((_vectors(one), _vectors(other)))
    low_rank = all(b is a or (isinstance(b, AdaptedWeight) and b.base is a and not b.embedding) for a, b in pairs)
    same = all(len(a) == len(b) and all(x is y for x, y in zip(a, b)) for a, b in vectors)
    return low_rank and same and model.tok_embeddings is base.tok_embeddings


def _vectors(block: Block) -> list[Tensor]:
    """Buffers that are no matrix's."""
    return block.tensors[: len(block.tensors) - sum(len(w.tensors) for w in block.matrices)]
