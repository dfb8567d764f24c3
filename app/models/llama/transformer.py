"""The LLaMA decoder (arXiv 2302.13971) as calls to a kernel set: short here, fast there."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tinygrad import Tensor, UOp

from app.models.llama.checkpoint.checkpoint import Checkpoint
from app.models.llama.config import LlamaConfig
from app.models.llama.kv_cache import LayerCache
from app.models.llama.weight_cache import WeightCache
from ext.tinygrad.buffers import upload
from ext.tinygrad.kernels.protocol import Kernels, OneTokenProduct, PackedWeight, rope_table


@dataclass(frozen=True)
class Block:
    """Attention and feed-forward, each normed before and added to the residual stream; names are the checkpoint's."""

    attention_norm: Tensor  # (D,)
    wq: PackedWeight  # (H * Hd, D)
    wk: PackedWeight  # (KvH * Hd, D)
    wv: PackedWeight  # (KvH * Hd, D)
    wo: PackedWeight  # (D, H * Hd)
    ffn_norm: Tensor  # (D,)
    w1: PackedWeight  # gate, (F, D)
    w2: PackedWeight  # down, (D, F)
    w3: PackedWeight  # up, (F, D)

    @property
    def tensors(self) -> list[Tensor]:
        """Every buffer, in a fixed order."""
        return [self.attention_norm, self.ffn_norm, *(t for w in self.matrices for t in w.tensors)]

    @property
    def matrices(self) -> tuple[PackedWeight, ...]:
        return (self.wq, self.wk, self.wv, self.wo, self.w1, self.w2, self.w3)

    @property
    def layout(self) -> tuple:
        """Blocks of one layout differ in nothing but the numbers in their buffers."""
        return tuple(w.layout for w in self.matrices)

    def __call__(
        self, x: Tensor, cache: LayerCache, rope: Tensor, start_pos: UOp, eps: float, kernels: Kernels
    ) -> tuple[Tensor, LayerCache]:
        """The result is in the buffer of x, which is read for the last time before it is written."""
        q, k, v = kernels.norm_qkv(x, self.attention_norm, eps, self.wq, self.wk, self.wv, rope, cache.k, cache.v, start_pos)
        between = kernels.linear_residual(kernels.attend(q, k, v, start_pos), self.wo, x)  # (T, D)
        h = kernels.norm_gated(between, self.ffn_norm, eps, self.w1, self.w3)  # (T, F)
        return kernels.linear_residual(h, self.w2, between, out=x), LayerCache(k, v)  # (T, D)


@dataclass(frozen=True)
class Transformer:
    """Weights on a device and the pass over them; the cache is handed in, so one model serves many conversations."""

    config: LlamaConfig
    kernels: Kernels
    tok_embeddings: PackedWeight  # (V, D)
    blocks: tuple[Block, ...]
    norm: Tensor  # (D,)
    output: PackedWeight  # (V, D); tok_embeddings again where the model ties them
    rope: Tensor  # (rows, Hd / 2, 2)

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Checkpoint,
        kernels: Kernels,
        device: str,
        cache_rows: int,
        on_bytes: Callable[[int], None] = lambda n: None,
        matrices: WeightCache | None = None,
    ) -> "Transformer":
        """Read, lay out and place every weight; `on_bytes` hears how many bytes of the file each one was."""
        config = checkpoint.config
        matrices = matrices or WeightCache(checkpoint, kernels, device)

        def matrix(name: str) -> PackedWeight:
            packed, nbytes = matrices.matrix(f"{name}.weight")
            on_bytes(nbytes)
            return packed

        def vector(name: str) -> Tensor:
            stored = checkpoint.vector(f"{name}.weight")
            on_bytes(stored.nbytes)
            return upload(stored, device)

        def block(i: int) -> Block:
            attention, feed_forward = f"layers.{i}.attention", f"layers.{i}.feed_forward"
            return Block(
                attention_norm=vector(f"layers.{i}.attention_norm"),
                **{w: matrix(f"{attention}.{w}") for w in ("wq", "wk", "wv", "wo")},
                ffn_norm=vector(f"layers.{i}.ffn_norm"),
                **{w: matrix(f"{feed_forward}.{w}") for w in ("w1", "w2", "w3")},
            )

        embeddings = matrix("tok_embeddings")
        return cls(
            config=config,
            kernels=kernels,
            tok_embeddings=embeddings,
            blocks=tuple(block(i) for i in range(config.n_layers)),
            norm=vector("norm"),
            output=embeddings if config.tied else matrix("output"),
            rope=upload(rope_angles(config, cache_rows), device),
        )

    @property
    def weights(self) -> list[PackedWeight]:
        """Every matrix once."""
        matrices = [w for block in self.blocks for w in block.matrices]
        return [self.tok_embeddings, *matrices, *([] if self.output is self.tok_embeddings else [self.output])]

    @property
    def one_token_products(self) -> list[OneTokenProduct]:
        """What a decode step multiplies: each product of each kind of block with its weights by layer, and the head."""
        products = [OneTokenProduct("linear", True, ((self.output,),))]
        for layout in dict.fromkeys(block.layout for block in self.blocks):
            alike = [block for block in self.blocks if block.layout == layout]
            products += [
                OneTokenProduct("qkv", True, tuple((b.wq, b.wk, b.wv) for b in alike), self.config.head_dim),
                OneTokenProduct("linear", False, tuple((b.wo,) for b in alike)),
                OneTokenProduct("gated", True, tuple((b.w1, b.w3) for b in alike)),
                OneTokenProduct("linear", False, tuple((b.w2,) for b in alike)),
            ]
        return products

    @property
    def nbytes(self) -> int:
        """Bytes of the matrices on the device."""
        return sum(w.nbytes for w in self.weights)

    def embed(self, ids: Tensor) -> Tensor:
        """(T,) int32 ids to the residual stream, (T, D)."""
        return self.kernels.embed(ids, self.tok_embeddings)

    def block(self, i: int, x: Tensor, cache: LayerCache, start_pos: UOp) -> tuple[Tensor, LayerCache]:
        """The residual stream through block i, (T, D), in the buffer of x, and its cache after the store."""
        return self.blocks[i](x, cache, self.rope, start_pos, self.config.norm_eps, self.kernels)

    def head(self, x: Tensor) -> Tensor:
        """The residual stream after the last block to float32 logits, (T, V)."""
        return self.kernels.norm_linear(x, self.norm, self.config.norm_eps, self.output)


def rope_angles(config: LlamaConfig, rows: int, scaled: bool = True) -> np.ndarray:
    """The model's RoPE table, float32 (rows, Hd / 2, 2); not `scaled`, it turns and leaves lengths alone."""
    c = config
    return rope_table(rows, c.head_dim, c.rope_dim, c.rope_theta, c.rope_factors, c.rope_scale if scaled else 1.0)
