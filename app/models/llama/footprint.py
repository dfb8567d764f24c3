"""What a model takes of a device's memory, computed from the checkpoint's headers: what does not fit is refused before it is read."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from tinygrad.dtype import DType

from app.models.llama.checkpoint.checkpoint import Checkpoint
from app.models.llama.config import LlamaConfig
from app.models.llama.window_rows import longest, most_rows
from ext.tinygrad.device_memory import available_memory
from ext.tinygrad.kernels.packed.formats import FORMATS, LAYOUT, format_of
from ext.tinygrad.kernels.protocol import Kernels
from ext.tinygrad.kernels.quantised_rows import row_elements
from ext.tinygrad.toolchain import BackendError


class DoesNotFit(BackendError):
    """The model needs more memory than its device has available."""

    def __init__(self, name: str, footprint: "Footprint", available: int, device: str):
        super().__init__(
            f"{name} needs {_size(footprint.nbytes)} of {device}'s memory (weights {_size(footprint.weights)}, a context of "
            f"{footprint.max_context} tokens {_size(footprint.cache)}), and {_size(available)} are available: take weights of fewer bits, "
            f"lower --max-context, end other programs that use the card, or run with CPU=1"
        )
        self.needed, self.available = footprint.nbytes, available


@dataclass(frozen=True)
class Footprint:
    """Bytes on a device."""

    weights: int  # matrices, norms and the RoPE table
    cache: int  # keys and values of one conversation
    scratch: int  # of the passes: residual stream, queries, what a feed-forward holds, logits
    max_context: int

    @property
    def nbytes(self) -> int:
        return self.weights + self.cache + self.scratch

    @classmethod
    def of(
        cls, checkpoint: Checkpoint, max_context: int, rows: int, chunks: tuple[int, ...], cache: DType, device: str = ""
    ) -> "Footprint":
        """`rows` of a cache; `chunks`: tokens that passes take; `cache`: the type of its tensors. On the CPU layers with a window keep
        less."""
        c = checkpoint.config
        names = [name for name in checkpoint.tensor_names if not (c.tied and name == "output.weight")]
        stored = [checkpoint.stored(name) for name in names]
        weights = sum(packed_nbytes(s.type, s.shape) if len(s.shape) == 2 else 4 * math.prod(s.shape) for s in stored)
        ropes = {c.rope(layer, max_context) for layer in range(c.n_layers)}
        rope = sum(4 * rows * c.head_dim * (1 if one.scale == 1 else 2) for one in ropes)
        windows = [window if (window := c.window(layer)) < max_context else 0 for layer in range(c.n_layers)]
        row, window = row_elements(c.head_dim, cache) * cache.itemsize, longest(windows, device)
        kept = sum(most_rows(rows, window if one else 0, row) for one in windows)
        return cls(weights + rope, 2 * c.n_kv_heads * row * kept, _scratch(c, chunks), max_context)


def packed_nbytes(ggml_type: str, shape: tuple[int, ...]) -> int:
    """Of a matrix (rows, cols) as kernels/packed/packed_matrix.py lays it out."""
    rows, cols = shape
    form = format_of(ggml_type)
    return (FORMATS["f16"] if form.bits and cols % 32 else form).nbytes(rows, cols)


def check_fit(footprint: Callable[[], Footprint], name: str, kernels: Kernels, device: str) -> None:
    """DoesNotFit where the device tells how much memory it has available, and the model of that name needs more."""
    if kernels.layout != LAYOUT or (available := available_memory(device)) is None:
        return
    if (needed := footprint()).nbytes > available:
        raise DoesNotFit(name, needed, available, device)


def _scratch(c: LlamaConfig, chunks: tuple[int, ...]) -> int:
    """float32 buffers of one pass per chunk size, and of a decode step."""
    per_token = 3 * c.dim + 3 * c.n_heads * c.head_dim + 2 * c.hidden_dim
    return 4 * (per_token * (1 + sum(chunks)) + c.vocab_size)


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e9:.1f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.0f} MB"
