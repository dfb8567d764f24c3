"""What an adapter is, whatever file it came in: two narrow matrices for each matrix that it changes, and tensors that it replaces whole.

y = x Wᵀ + scale (x Aᵀ) Bᵀ (LoRA, arXiv 2106.09685). With magnitudes m (DoRA, arXiv 2402.09353) row i of W + scale B A is brought to the
length m[i].
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from app.models.llama.checkpoint.checkpoint import expected_shapes
from app.models.llama.config import LlamaConfig
from app.models.llama.sanitize import clipped
from ext.tinygrad.errors import TownhallError

EMBEDDING, HEAD = "tok_embeddings.weight", "output.weight"
ADAPTABLE = tuple(f"attention.{name}.weight" for name in ("wq", "wk", "wv", "wo"))
ADAPTABLE += tuple(f"feed_forward.{name}.weight" for name in ("w1", "w2", "w3"))  # of a layer


class AdapterError(TownhallError):
    """An adapter that cannot be used: names the file, the fault and the mend."""


@dataclass(frozen=True)
class LowRank:
    """The change of one matrix (out, in); of the embedding, in is the vocabulary and out the model's dim: x is a one-hot vector there."""

    a: np.ndarray  # (r, in) float32
    b: np.ndarray  # (out, r) float32; rows of queries and keys with RoPE's pairs side by side, as a Checkpoint's
    scale: float  # alpha / r, or alpha / sqrt(r)
    magnitude: np.ndarray | None = None  # (out,) float32, DoRA's

    @property
    def rank(self) -> int:
        return int(self.a.shape[0])

    @property
    def shape(self) -> tuple[int, int]:
        return int(self.b.shape[0]), int(self.a.shape[1])

    def delta(self) -> np.ndarray:
        """scale B A, float32 (out, in): all of the change where there are no magnitudes."""
        return (np.float32(self.scale) * self.b) @ self.a

    def gain(self, base: np.ndarray) -> np.ndarray:
        """By what each row of base + scale B A is multiplied to have DoRA's length: float32 (out,)."""
        assert self.magnitude is not None
        lengths = np.linalg.norm(base + self.delta(), axis=1)
        return np.divide(self.magnitude, lengths, out=np.ones_like(self.magnitude), where=lengths > 0)

    def merged(self, base: np.ndarray, share: float = 1.0) -> np.ndarray:
        """The matrix with `share` of the change, float32 (out, in)."""
        delta = self.delta()
        if self.magnitude is not None:
            delta = self.gain(base)[:, None] * (base + delta) - base
        return base + np.float32(share) * delta


@dataclass(frozen=True)
class Adapter:
    """Names are a Checkpoint's (layers.3.attention.wq.weight). What is neither changed nor replaced stays the base's."""

    matrices: Mapping[str, LowRank]
    replaced: Mapping[str, np.ndarray] = field(default_factory=dict)  # float32 tensors in place of the base's (peft: modules_to_save, bias)
    base: str = ""  # what its file says that it was trained on
    path: str = ""

    @cached_property
    def digest(self) -> str:
        """SHA-256 over every number, in hexadecimal: what a KV cache is keyed by."""
        digest = hashlib.sha256()
        for name in sorted(self.matrices):
            change = self.matrices[name]
            digest.update(f"{name} {change.shape} {change.rank} {change.scale!r} {change.magnitude is not None}\n".encode())
            for values in (change.a, change.b, change.magnitude):
                if values is not None:
                    digest.update(np.ascontiguousarray(values, "<f4").data)
        for name in sorted(self.replaced):
            digest.update(f"{name} {self.replaced[name].shape}\n".encode())
            digest.update(np.ascontiguousarray(self.replaced[name], "<f4").data)
        return digest.hexdigest()

    @property
    def parameters(self) -> int:
        changes = self.matrices.values()
        own = sum(c.a.size + c.b.size + (0 if c.magnitude is None else c.magnitude.size) for c in changes)
        return own + sum(values.size for values in self.replaced.values())


def adaptable_shapes(config: LlamaConfig) -> dict[str, tuple[int, int]]:
    """(out, in) of every matrix that an adapter may change, by name; the head as well where it is the embedding, which then stays."""
    shapes: dict[str, tuple[int, int]] = {EMBEDDING: (config.dim, config.vocab_size), HEAD: (config.vocab_size, config.dim)}
    for name, shape in expected_shapes(config).items():
        if name.startswith("layers.") and name.split(".", 2)[2] in ADAPTABLE:
            shapes[name] = (shape[0], shape[1])
    return shapes


def checked(adapter: Adapter, config: LlamaConfig) -> Adapter:
    """AdapterError unless it fits a model of these sizes, and every number is one."""
    where, shapes, whole = (
        adapter.path or "the adapter",
        adaptable_shapes(config),
        expected_shapes(config) | {HEAD: (config.vocab_size, config.dim)},
    )
    if not adapter.matrices and not adapter.replaced:
        raise AdapterError(f"{where} holds no tensors; save the adapter again, and check that its file is more than some hundred bytes")
    for name, change in adapter.matrices.items():
        if name not in shapes:
            raise AdapterError(f"{where} changes {clipped(name)}, which this model has not; use the base that it was trained on")
        if change.shape != shapes[name] or change.b.shape[1] != change.rank:
            found = f"{change.b.shape} times {change.a.shape}"
            raise AdapterError(
                f"{where} changes {name} by {found}, where the model needs {shapes[name]}; use the base that it was trained on"
            )
        if change.magnitude is not None and change.magnitude.shape != (change.shape[0],):
            raise AdapterError(
                f"{where} has {change.magnitude.shape} magnitudes for {name}, where the model needs {change.shape[0]}; use its own base"
            )
        if not math.isfinite(change.scale) or not all(
            np.isfinite(v).all() for v in (change.a, change.b, change.magnitude) if v is not None
        ):
            raise AdapterError(
                f"{where} holds numbers for {name} that are none (NaN or infinity); take an earlier checkpoint of its training"
            )
    for name, values in adapter.replaced.items():
        if name not in whole or name in adapter.matrices:
            raise AdapterError(f"{where} replaces {clipped(name)}, which this model has no place for; use the base that it was trained on")
        if values.shape != whole[name]:
            hint = "; its vocabulary was resized" if name in (EMBEDDING, HEAD) else ""
            raise AdapterError(
                f"{where} replaces {name} by {values.shape}, where the model has {whole[name]}{hint}; use the base that it was trained on"
            )
        if not np.isfinite(values).all():
            raise AdapterError(
                f"{where} holds numbers in {name} that are none (NaN or infinity); take an earlier checkpoint of its training"
            )
    return adapter
