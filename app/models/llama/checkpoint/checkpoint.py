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


GGUF_NAMES = {"token_embd.weight": "tok_embeddings.weight", "output_norm.weight": "norm.weight", "output.weight": "output.weight"}
GGUF_LAYER_NAMES = {
    "attn_norm.weight": "attention_norm.weight",
    "attn_q.weight": "attention.wq.weight",
    "attn_k.weight": "attention.wk.weight",
    "attn_v.weight": "attention.wv.weight",
    "attn_output.weight": "attention.wo.weight",
    "ffn_norm.weight": "ffn_norm.weight",
    "ffn_gate.weight": "feed_forward.w1.weight",
    "ffn_down.weight": "feed_forward.w2.weight",
    "ffn_up.weight": "feed_forward.w3.weight",
}

HF_NAMES = {"model.embed_tokens.weight": "tok_embeddings.weight", "model.norm.weight": "norm.weight", "lm_head.weight": "output.weight"}
HF_LAYER_NAMES = {
    "input_layernorm.weight": "attention_norm.weight",
    "self_attn.q_proj.weight": "attention.wq.weight",
    "self_attn.k_proj.weight": "attention.wk.weight",
    "self_attn.v_proj.weight": "attention.wv.weight",
    "self_attn.o_proj.weight": "attention.wo.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "mlp.gate_proj.weight": "feed_forward.w1.weight",
    "mlp.down_proj.weight": "feed_forward.w2.weight",
    "mlp.up_proj.weight": "feed_forward.w3.weight",
}
META_NAMES = {name: name for name in HF_NAMES.values()}
META_LAYER_NAMES = {name: name for name in HF_LAYER_NAMES.values()}
# tables that can be computed and old programs saved along: RoPE's frequencies, causal masks
COMPUTED = (".attn_rot_embd", "rope.freqs", ".rotary_emb.inv_freq", ".inner_attention.rope.freqs", ".masked_bias", ".attn.bias")


def canonical_from_gguf(name: str) -> str | None:
    """`blk.3.attn_q.weight` → `layers.3.attention.wq.weight`; None for a tensor the model has no place for."""
    return GGUF_NAMES.get(name) or _layer(name, "blk.", GGUF_LAYER_NAMES)


def canonical_from_hf(name: str) -> str | None:
    """`model.layers.3.self_attn.q_proj.weight` → `layers.3.attention.wq.weight`."""
    return HF_NAMES.get(name) or _layer(name, "model.layers.", HF_LAYER_NAMES)


def canonical_from_meta(name: str) -> str | None:
    """Meta's names are the canonical ones."""
    return META_NAMES.get(name) or _layer(name, "layers.", META_LAYER_NAMES)


def gguf_from_canonical(name: str) -> str:
    """The name that a GGUF gives a tensor of this model."""
    if not name.startswith("layers."):
        return next(theirs for theirs, ours in GGUF_NAMES.items() if ours == name)
    _, layer, part = name.split(".", 2)
    return f"blk.{layer}.{next(theirs for theirs, ours in GGUF_LAYER_NAMES.items() if ours == part)}"


def _layer(name: str, prefix: str, parts: dict[str, str]) -> str | None:
    if not name.startswith(prefix):
        return None
    layer, _, part = name.removeprefix(prefix).partition(".")
    # only the plain spelling of a number, so that two names never mean one tensor
    if layer.isdecimal() and layer.isascii() and str(int(layer[:9])) == layer and part in parts:
        return f"layers.{layer}.{parts[part]}"
    return None


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


def expected_shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """Canonical name → shape of every tensor this model needs, (out, in) for matrices."""
    c = config
    q_rows, kv_rows = c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim
    layer: dict[str, tuple[int, ...]] = {
        "attention_norm.weight": (c.dim,),
        "attention.wq.weight": (q_rows, c.dim),
        "attention.wk.weight": (kv_rows, c.dim),
        "attention.wv.weight": (kv_rows, c.dim),
        "attention.wo.weight": (c.dim, q_rows),
        "ffn_norm.weight": (c.dim,),
        "feed_forward.w1.weight": (c.hidden_dim, c.dim),
        "feed_forward.w2.weight": (c.dim, c.hidden_dim),
        "feed_forward.w3.weight": (c.hidden_dim, c.dim),
    }
    shapes: dict[str, tuple[int, ...]] = {"tok_embeddings.weight": (c.vocab_size, c.dim)}
    shapes |= {f"layers.{n}.{name}": shape for n in range(c.n_layers) for name, shape in layer.items()}
    shapes["norm.weight"] = (c.dim,)
    if not c.tied:
        shapes["output.weight"] = (c.vocab_size, c.dim)
    return shapes


def parameters(config: LlamaConfig) -> int:
    """Weights in all."""
    return sum(math.prod(shape) for shape in expected_shapes(config).values())


def refuse_surplus_tokens(tokens: int, rows: int, path: Path) -> None:
    """Every id of the tokenizer needs a row; the other way round, ids beyond the tokenizer are never sampled."""
    if tokens > rows:
        raise CheckpointError(
            f"{path} has {tokens:,} tokens but only {rows:,} rows in its embedding; use the tokenizer that belongs to these weights"
        )
