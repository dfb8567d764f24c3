"""What every checkpoint format offers, the names of a LLaMA's tensors and the shapes they must have."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from app.models.llama.checkpoint.files import CheckpointError
from app.models.llama.config import LlamaConfig
from ext.tinygrad.kernels.matrix import QuantMatrix

if TYPE_CHECKING:
    from app.models.llama.tokenizers.tokenizer import Tokenizer


@dataclass(frozen=True)
class StoredMatrix:
    """A tensor's ggml type, shape and bytes on disk."""

    type: str
    shape: tuple[int, ...]
    nbytes: int


class Checkpoint(Protocol):
    """Weights on disk under canonical (Meta's) names, RoPE pairs adjacent; everything is checked when it opens."""

    @property
    def path(self) -> Path: ...
    @property
    def config(self) -> LlamaConfig: ...
    @property
    def tensor_names(self) -> Collection[str]: ...
    @property
    def nbytes(self) -> int:
        """Bytes of tensor data on disk."""
        ...

    def matrix(self, name: str, wanted: slice = slice(None)) -> QuantMatrix:
        """A 2-D tensor as stored, (rows, cols), or some of its rows; where the layout is the file's nothing is copied or read yet."""
        ...

    def prefetch(self, name: str) -> None:
        """Read a tensor off the disk, so that `matrix` finds it in memory; others run meanwhile."""
        ...

    def release(self, name: str) -> None:
        """Give back the memory that reading a tensor took; it can be read again."""
        ...

    def vector(self, name: str) -> np.ndarray:
        """A 1-D tensor as float32."""
        ...

    def tokenizer(self) -> "Tokenizer":
        """Refused where it has more ids than the embedding has rows."""
        ...

    @property
    def tokenizer_metadata(self) -> Mapping[str, Any]:
        """The tokenizer as a GGUF carries it: tokenizer.ggml.* and tokenizer.chat_template."""
        ...

    @property
    def format(self) -> str:
        """In words, for a person."""
        ...

    @property
    def files(self) -> Sequence[Path]:
        """The files that hold the weights."""
        ...

    def stored(self, name: str) -> "StoredMatrix":
        """How the file keeps a tensor."""
        ...

    def token_roles(self) -> Mapping[str, Mapping[str, Sequence[int]]]:
        """What each source gives as the ids of "bos", "eos" and "pad"."""
        ...

    def fingerprint(self) -> str:
        """A cheap key that stays the same for the same content and changes with it."""
        ...


class DerivedCheckpoint:
    """What a checkpoint made of another one passes on; `matrix`, `stored`, `format` and `fingerprint` are its own."""

    def __init__(self, source: Checkpoint) -> None:
        self.source = source
        self.path: Path = source.path
        self.files: Sequence[Path] = source.files
        self.config: LlamaConfig = source.config

    def source_name(self, name: str) -> str:
        """What the source calls the tensor that stands for `name`."""
        return name

    @property
    def tensor_names(self) -> Collection[str]:
        return self.source.tensor_names

    def prefetch(self, name: str) -> None:
        self.source.prefetch(self.source_name(name))

    def release(self, name: str) -> None:
        self.source.release(self.source_name(name))

    def vector(self, name: str) -> np.ndarray:
        return self.source.vector(name)

    def tokenizer(self) -> "Tokenizer":
        return self.source.tokenizer()

    @property
    def tokenizer_metadata(self) -> Mapping[str, Any]:
        return self.source.tokenizer_metadata

    def token_roles(self) -> Mapping[str, Mapping[str, Sequence[int]]]:
        return self.source.token_roles()


def expected_shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """Canonical name → shape of every tensor this model needs, (out, in) for matrices; of experts, one after another."""
    c, t = config, config.traits
    q_rows, kv_rows = c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim
    experts = t.experts.count if t.experts else 1
    mlp = "feed_forward.experts" if t.experts else "feed_forward"
    layer: dict[str, tuple[int, ...]] = {
        "attention.wq.weight": (q_rows, c.dim),
        "attention.wk.weight": (kv_rows, c.dim),
        "attention.wv.weight": (kv_rows, c.dim),
        "attention.wo.weight": (c.dim, q_rows),
        f"{mlp}.w1.weight": (experts * c.hidden_dim, c.dim),
        f"{mlp}.w2.weight": (experts * c.dim, c.hidden_dim),
        f"{mlp}.w3.weight": (experts * c.hidden_dim, c.dim),
    }
    if t.experts:
        layer["feed_forward.router.weight"] = (t.experts.count, c.dim)
    norms = ["attention_norm"] * t.pre_norm + ["ffn_norm"] * (t.pre_norm and not t.parallel)
    norms += ["attention_post_norm", "ffn_post_norm"] * t.post_norm
    kinds = ["weight", "bias"] if t.norm_bias else ["weight"]
    layer |= {f"{norm}.{kind}": (c.dim,) for norm in norms for kind in kinds}
    if t.head_norm:
        per_head = t.head_norm == "head"
        layer |= {"attention.q_norm.weight": (c.head_dim if per_head else q_rows,)}
        layer |= {"attention.k_norm.weight": (c.head_dim if per_head else kv_rows,)}
    if t.qkv_bias:
        layer |= {"attention.wq.bias": (q_rows,), "attention.wk.bias": (kv_rows,), "attention.wv.bias": (kv_rows,)}
    if t.output_bias:
        layer["attention.wo.bias"] = (c.dim,)
    if t.mlp_bias:
        layer |= {"feed_forward.w1.bias": (c.hidden_dim,), "feed_forward.w2.bias": (c.dim,), "feed_forward.w3.bias": (c.hidden_dim,)}
    shapes: dict[str, tuple[int, ...]] = {"tok_embeddings.weight": (c.vocab_size, c.dim)}
    shapes |= {f"layers.{n}.{name}": shape for n in range(c.n_layers) for name, shape in layer.items()}
    shapes |= {f"norm.{kind}": (c.dim,) for kind in kinds}
    if not c.tied:
        shapes["output.weight"] = (c.vocab_size, c.dim)
    return shapes


def adjacent_entries(name: str, n: int, head_dim: int, rope_dim: int) -> np.ndarray | None:
    """Where the rows or entries of a half-split tensor of queries or keys come from once RoPE's pairs stand side by side: (n,) indices.

    None for a tensor that does not have them."""
    if not name.endswith(TURNED):
        return None
    order = np.arange(head_dim)
    order[:rope_dim] = np.arange(rope_dim).reshape(2, rope_dim // 2).T.ravel()
    return (np.arange(0, n, head_dim)[:, None] + order).ravel()


# of one entry for each of a query's or key's
TURNED = tuple(f"attention.{name}" for name in ("wq.weight", "wk.weight", "wq.bias", "wk.bias", "q_norm.weight", "k_norm.weight"))


def parameters(config: LlamaConfig) -> int:
    """Weights in all."""
    return sum(math.prod(shape) for shape in expected_shapes(config).values())


def refuse_surplus_tokens(tokens: int, rows: int, path: Path) -> None:
    """Every id of the tokenizer needs a row; the other way round, ids beyond the tokenizer are never sampled."""
    if tokens > rows:
        raise CheckpointError(
            f"{path} has {tokens:,} tokens but only {rows:,} rows in its embedding; use the tokenizer that belongs to these weights"
        )
