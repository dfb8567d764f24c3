"""What one checkpoint has beyond another, as an adapter: each matrix's difference by a randomised SVD (arXiv 0909.4061)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from app.models.llama.checkpoint.checkpoint import Checkpoint
from app.models.llama.lora.adapter import EMBEDDING, HEAD, Adapter, AdapterError, LowRank, adaptable_shapes

OVERSAMPLED = 8  # directions looked at beyond the rank
POWER_STEPS = 2  # each sharpens how singular values stand out


@dataclass(frozen=True)
class MatrixError:
    """Of one matrix's difference: its size beside the base's, and what of it the rank does not hold, as shares of norms."""

    name: str
    size: float
    left_out: float


@dataclass(frozen=True)
class Extraction:
    adapter: Adapter
    errors: tuple[MatrixError, ...]
    kept_out: tuple[str, ...]  # tensors that differ and that no low rank can say: norms, biases


def low_rank(difference: np.ndarray, rank: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A (r, cols) and B (rows, r), float32, whose product is nearly the best of that rank."""
    random = np.random.default_rng(seed)
    wide = min(rank + OVERSAMPLED, *difference.shape)
    basis = difference @ random.standard_normal((difference.shape[1], wide)).astype(np.float32)
    for _ in range(POWER_STEPS):
        basis = np.linalg.qr(difference @ np.linalg.qr(difference.T @ np.linalg.qr(basis)[0])[0])[0]
    basis = np.linalg.qr(basis)[0]
    u, s, v = np.linalg.svd(basis.T @ difference, full_matrices=False)
    kept = min(rank, len(s))
    root = np.sqrt(s[:kept])
    return (root[:, None] * v[:kept]).astype(np.float32), (basis @ u[:, :kept] * root).astype(np.float32)


def extract(
    base: Checkpoint, tuned: Checkpoint, rank: int, on_matrix: Callable[[int, int], object] = lambda done, total: None
) -> Extraction:
    """`on_matrix` hears how many matrices are done, of how many. AdapterError for checkpoints of two sizes, and where nothing differs."""
    mine, theirs = base.config, tuned.config
    shapes = adaptable_shapes(mine)
    if shapes != adaptable_shapes(theirs) or mine.traits != theirs.traits:
        raise AdapterError(f"{tuned.path} is of other sizes than {base.path}; an adapter says how two checkpoints of one model differ")
    matrices: dict[str, LowRank] = {}
    errors: list[MatrixError] = []
    for done, name in enumerate(shapes):
        on_matrix(done, len(shapes))
        before, after = (_matrix(checkpoint, name) for checkpoint in (base, tuned))
        difference = after - before
        size = float(np.linalg.norm(difference))
        if not np.isfinite(size):
            raise AdapterError(f"{name} of {base.path} or {tuned.path} holds numbers that are none; use a sound checkpoint")
        if size:
            a, b = low_rank(difference.T if name == EMBEDDING else difference, rank)
            rest = np.linalg.norm((difference.T if name == EMBEDDING else difference) - b @ a)
            errors.append(MatrixError(name, size / max(float(np.linalg.norm(before)), 1e-30), float(rest) / size))
            matrices[name] = LowRank(a, b, 1.0)
    on_matrix(len(shapes), len(shapes))
    if not matrices:
        raise AdapterError(f"{tuned.path} and {base.path} have the same matrices; pass two checkpoints that differ")
    vectors = [name for name in base.tensor_names if name in tuned.tensor_names and len(base.stored(name).shape) == 1]
    kept_out = tuple(name for name in vectors if not np.array_equal(base.vector(name), tuned.vector(name)))
    return Extraction(Adapter(matrices, base=mine.name, path=str(tuned.path)), tuple(errors), kept_out)


def _matrix(checkpoint: Checkpoint, name: str) -> np.ndarray:
    """float32 (rows, cols) as the checkpoint has it; the head of a tied model is its embedding."""
    name = EMBEDDING if name == HEAD and checkpoint.config.tied else name
    values = checkpoint.matrix(name).dequantize()
    checkpoint.release(name)
    return values
