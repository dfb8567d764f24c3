"""The LLaMA decoder (arXiv 2302.13971), and its relatives by their traits, as calls to a kernel set: short here, fast there."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tinygrad import Tensor, UOp
from tinygrad.dtype import DType

from app.models.llama.checkpoint.checkpoint import Checkpoint
from app.models.llama.config import LlamaConfig
from app.models.llama.kv_cache import LayerCache
from app.models.llama.traits import LLAMA, Rope, Traits
from app.models.llama.weight_cache import WeightCache
from ext.tinygrad.buffers import read, upload
from ext.tinygrad.kernels.protocol import (
    FULL_ATTENTION,
    Attention,
    HeadTransform,
    Kernels,
    OneTokenProduct,
    PackedWeight,
    Routing,
    rope_table,
)
from ext.tinygrad.kernels.quantised_rows import QUANTISED


@dataclass(frozen=True)
class Norm:
    """RMSNorm (arXiv 1910.07467), or LayerNorm where it is `centred`."""

    weight: Tensor  # (D,)
    eps: float
    bias: Tensor | None = None  # (D,)
    centred: bool = False

    @property
    def tensors(self) -> list[Tensor]:
        return [self.weight] if self.bias is None else [self.weight, self.bias]

    def fused(self, x: Tensor, kernels: Kernels) -> tuple[Tensor, Tensor | None]:
        """What an operation that norms its input takes: x and the weights of an RMSNorm, or x normed already and None."""
        return (kernels.layer_norm(x, self.weight, self.bias, self.eps), None) if self.centred else (x, self.weight)

    def of_rows(self, rows: np.ndarray) -> np.ndarray:
        """The norm of float32 (T, D) in host memory, for the few rows whose hidden states are asked for."""
        if self.centred:
            rows = rows - rows.mean(axis=1, keepdims=True)
        weight, *bias = (read(vector, np.empty(vector.shape, np.float32)) for vector in self.tensors)
        normed: np.ndarray = rows / np.sqrt(np.mean(rows * rows, axis=1, keepdims=True) + np.float32(self.eps)) * weight
        return normed + bias[0] if bias else normed


@dataclass(frozen=True)
class Block:
    """Attention and feed-forward, each normed before (or after, or both) and added to the residual stream; names are the checkpoint's."""

    wq: PackedWeight  # (H * Hd, D)
    wk: PackedWeight  # (KvH * Hd, D)
    wv: PackedWeight  # (KvH * Hd, D)
    wo: PackedWeight  # (D, H * Hd)
    w1: PackedWeight  # gate, (F, D); of experts one after another
    w2: PackedWeight  # down, (D, F)
    w3: PackedWeight  # up, (F, D)
    rope: Tensor  # (rows, Hd / 2, 2)
    attention_norm: Norm | None
    ffn_norm: Norm | None  # None: attention's serves (parallel), or what the feed-forward gives is normed
    attention_post_norm: Norm | None = None
    ffn_post_norm: Norm | None = None
    heads: HeadTransform | None = None
    attention: Attention = FULL_ATTENTION
    wo_bias: Tensor | None = None  # (D,)
    gated_bias: Tensor | None = None  # (2 F,): gate's, up's
    w2_bias: Tensor | None = None  # (D,)
    router: PackedWeight | None = None  # of a mixture of experts, (E, D)
    traits: Traits = LLAMA

    @property
    def tensors(self) -> list[Tensor]:
        """Every buffer, in a fixed order."""
        norms = [norm for norm in (self.attention_norm, self.ffn_norm, self.attention_post_norm, self.ffn_post_norm) if norm is not None]
        vectors = [t for norm in norms for t in norm.tensors] + (self.heads.tensors if self.heads else [])
        vectors += [bias for bias in (self.wo_bias, self.gated_bias, self.w2_bias) if bias is not None]
        return [self.rope, *vectors, *(t for w in self.matrices for t in w.tensors)]

    @property
    def matrices(self) -> tuple[PackedWeight, ...]:
        router = () if self.router is None else (self.router,)
        return (self.wq, self.wk, self.wv, self.wo, self.w1, self.w2, self.w3, *router)

    @property
    def layout(self) -> tuple:
        """Blocks of one layout differ in nothing but the numbers in their buffers."""
        return (*(w.layout for w in self.matrices), self.attention)

    def __call__(self, x: Tensor, cache: LayerCache, start_pos: UOp, eps: float, kernels: Kernels) -> tuple[Tensor, LayerCache]:
        """The result is in the buffer of x, which is read for the last time before it is written."""
        t = self.traits
        to_attend, norm = self.attention_norm.fused(x, kernels) if self.attention_norm else (x, None)
        q, k, v = kernels.norm_qkv(to_attend, norm, eps, self.wq, self.wk, self.wv, self.rope, cache.k, cache.v, start_pos, self.heads)
        attended = kernels.attend(q, k, v, start_pos, self.attention, self.wo)
        between = self._add(attended, self.wo, self.wo_bias, self.attention_post_norm, x, None, kernels)  # (T, D)
        if not t.parallel:
            to_attend, norm = self.ffn_norm.fused(between, kernels) if self.ffn_norm else (between, None)
        if self.router is not None and t.experts is not None:
            routing = Routing(t.experts.count, t.experts.used, t.experts.normalize)
            weights = (self.router, self.w1, self.w3, self.w2)
            return kernels.experts_residual(to_attend, norm, eps, *weights, routing, between, x, t.activation), LayerCache(k, v)
        h = kernels.norm_gated(to_attend, norm, eps, self.w1, self.w3, t.activation, self.gated_bias, self.w2)  # (T, F)
        return self._add(h, self.w2, self.w2_bias, self.ffn_post_norm, between, x, kernels), LayerCache(k, v)  # (T, D)

    def _add(
        self,
        x: Tensor,
        weight: PackedWeight,
        bias: Tensor | None,
        norm: Norm | None,
        residual: Tensor,
        out: Tensor | None,
        kernels: Kernels,
    ) -> Tensor:
        """What a sublayer ends with: its product, normed where there is a norm after it, added to the residual stream."""
        if norm is None:
            return kernels.linear_residual(x, weight, residual, out, bias, self.traits.residual_scale)
        return kernels.norm_residual(kernels.norm_linear(x, None, 0.0, weight), norm.weight, norm.eps, residual, out)


@dataclass(frozen=True)
class Transformer:
    """Weights on a device and the pass over them; the cache is handed in, so one model serves many conversations."""

    config: LlamaConfig
    kernels: Kernels
    tok_embeddings: PackedWeight  # (V, D)
    blocks: tuple[Block, ...]
    norm: Norm
    output: PackedWeight  # (V, D); tok_embeddings again where the model ties them
    rows: int  # of every cache and RoPE table

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Checkpoint,
        kernels: Kernels,
        device: str,
        cache_rows: int,
        on_bytes: Callable[[int], None] = lambda n: None,
        matrices: WeightCache | None = None,
        max_context: int = 0,
    ) -> "Transformer":
        """Read, lay out and place every weight; `on_bytes` hears how many bytes of the file each one was.

        `max_context`, by default as many as there are rows, decides between two sets of RoPE's factors where a model has them."""
        config = checkpoint.config
        matrices = matrices or WeightCache(checkpoint, kernels, device)

        def matrix(name: str) -> PackedWeight:
            packed, nbytes = matrices.matrix(f"{name}.weight")
            on_bytes(nbytes)
            return packed

        def place(values: np.ndarray) -> Tensor:
            on_bytes(values.nbytes)
            return upload(values, device)

        def vector(*names: str) -> Tensor:
            """Several are one behind the other."""
            return place(np.concatenate([checkpoint.vector(name) for name in names]))

        def norm(name: str) -> Norm:
            bias = vector(f"{name}.bias") if t.norm_bias else None
            return Norm(vector(f"{name}.weight"), config.norm_eps, bias, t.layer_norm)

        t, ropes = config.traits, dict[Rope, Tensor]()

        def rope(layer: int) -> Tensor:
            found = config.rope(layer, max_context)
            if found not in ropes:
                ropes[found] = upload(rope_angles(found, config.head_dim, cache_rows), device)
            return ropes[found]

        def heads(layer: str) -> HeadTransform | None:
            if not (t.qkv_bias or t.head_norm):
                return None
            bias = vector(*(f"{layer}.attention.{w}.bias" for w in ("wq", "wk", "wv"))) if t.qkv_bias else None
            normed = vector(*(f"{layer}.attention.{part}_norm.weight" for part in "qk")) if t.head_norm else None
            return HeadTransform(bias, normed, t.head_norm != "all", config.norm_eps)

        def block(i: int) -> Block:
            layer = f"layers.{i}"
            attention, feed_forward = f"{layer}.attention", f"{layer}.feed_forward"
            mlp = f"{feed_forward}.experts" if t.experts else feed_forward
            return Block(
                attention_norm=norm(f"{layer}.attention_norm") if t.pre_norm else None,
                **{w: matrix(f"{attention}.{w}") for w in ("wq", "wk", "wv", "wo")},
                ffn_norm=norm(f"{layer}.ffn_norm") if t.pre_norm and not t.parallel else None,
                **{w: matrix(f"{mlp}.{w}") for w in ("w1", "w2", "w3")},
                rope=rope(i),
                attention_post_norm=norm(f"{layer}.attention_post_norm") if t.post_norm else None,
                ffn_post_norm=norm(f"{layer}.ffn_post_norm") if t.post_norm else None,
                heads=heads(layer),
                attention=Attention(t.attention_scale, window if (window := config.window(i)) < max_context else 0, t.attention_softcap),
                wo_bias=vector(f"{attention}.wo.bias") if t.output_bias else None,
                gated_bias=vector(f"{feed_forward}.w1.bias", f"{feed_forward}.w3.bias") if t.mlp_bias else None,
                w2_bias=vector(f"{feed_forward}.w2.bias") if t.mlp_bias else None,
                router=matrix(f"{feed_forward}.router") if t.experts else None,
                traits=t,
            )

        max_context = max_context or cache_rows
        embeddings = matrix("tok_embeddings")
        return cls(
            config=config,
            kernels=kernels,
            tok_embeddings=embeddings,
            blocks=tuple(block(i) for i in range(config.n_layers)),
            norm=norm("norm"),
            output=embeddings if config.tied else matrix("output"),
            rows=cache_rows,
        )

    @property
    def weights(self) -> list[PackedWeight]:
        """Every matrix once."""
        matrices = [w for block in self.blocks for w in block.matrices]
        return [self.tok_embeddings, *matrices, *([] if self.output is self.tok_embeddings else [self.output])]

    def one_token_products(self, cache: DType) -> list[OneTokenProduct]:
        """What a decode step multiplies, over a cache of this type: each product of each kind of block with its weights by layer, and the
        head."""
        products = [OneTokenProduct("linear", True, ((self.output,),), eps=self.config.norm_eps)]
        for layout in dict.fromkeys(block.layout for block in self.blocks):
            alike = [block for block in self.blocks if block.layout == layout]
            products += [
                OneTokenProduct("qkv", True, tuple((b.wq, b.wk, b.wv) for b in alike), self.config.head_dim, cache == QUANTISED),
                OneTokenProduct("linear", False, tuple((b.wo,) for b in alike)),
            ]
            if self.config.traits.experts is None:
                products.append(OneTokenProduct("gated", True, tuple((b.w1, b.w3) for b in alike)))
                products.append(OneTokenProduct("linear", False, tuple((b.w2,) for b in alike)))
        return products

    @property
    def nbytes(self) -> int:
        """Bytes of the matrices on the device."""
        return sum(w.nbytes for w in self.weights)

    def embed(self, ids: Tensor) -> Tensor:
        """(T,) int32 ids to the residual stream, (T, D)."""
        return self.kernels.embed(ids, self.tok_embeddings, self.config.traits.embedding_scale)

    def block(self, i: int, x: Tensor, cache: LayerCache, start_pos: UOp) -> tuple[Tensor, LayerCache]:
        """The residual stream through block i, (T, D), in the buffer of x, and its cache after the store."""
        return self.blocks[i](x, cache, start_pos, self.config.norm_eps, self.kernels)

    def head(self, x: Tensor) -> Tensor:
        """The residual stream after the last block to float32 logits, (T, V)."""
        normed, norm = self.norm.fused(x, self.kernels)
        t = self.config.traits
        return self.kernels.norm_linear(normed, norm, self.config.norm_eps, self.output, t.logit_scale, t.logit_softcap)


def rope_angles(rope: Rope, head_dim: int, rows: int, scaled: bool = True) -> np.ndarray:
    """A layer's RoPE table, float32 (rows, Hd / 2, 2); not `scaled`, it turns and leaves lengths alone."""
    return rope_table(rows, head_dim, rope.dim, rope.theta, rope.factors, rope.scale if scaled else 1.0)
