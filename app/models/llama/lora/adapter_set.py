"""Adapters laid over a transformer: its packed weights as they are, and what the adapters change of them beside."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from tinygrad import Tensor

from app.models.llama.config import LlamaConfig
from app.models.llama.lora.adapter import EMBEDDING, HEAD, Adapter, LowRank, checked
from app.models.llama.lora.merged_checkpoint import refuse_conflicts
from app.models.llama.transformer import Block, Norm, Transformer
from ext.tinygrad.buffers import upload
from ext.tinygrad.kernels.low_rank import AdaptedWeight
from ext.tinygrad.kernels.matrix import QuantMatrix
from ext.tinygrad.kernels.protocol import PackedWeight

Scaled = tuple[Adapter, float]
ATTENTION, FEED_FORWARD = ("wq", "wk", "wv", "wo"), ("w1", "w2", "w3")
NORMS = ("attention_norm", "ffn_norm", "attention_post_norm", "ffn_post_norm")


@dataclass(frozen=True)
class AdapterSet:
    """Adapters with their scales, and the model that they make of the base: what a KV cache is filled by."""

    adapters: tuple[Scaled, ...]
    model: Transformer  # shares every buffer of the base

    @property
    def key(self) -> str:
        """Digest and scale of each: two sets of one key make the same logits."""
        return key_of(self.adapters)

    @property
    def nbytes(self) -> int:
        """Bytes on the device beyond the base's."""
        return sum(w.nbytes - w.base.nbytes for w in self.model.weights if isinstance(w, AdaptedWeight))


def in_order(adapters: Sequence[Scaled]) -> tuple[Scaled, ...]:
    """Without those that count nothing, and in an order of their own: sums round alike however they were named."""
    return tuple(sorted(((a, float(scale)) for a, scale in adapters if scale), key=lambda one: (one[0].digest, one[1])))


def key_of(adapters: Sequence[Scaled]) -> str:
    return ",".join(f"{adapter.digest}@{scale!r}" for adapter, scale in in_order(adapters))


def lay_over(model: Transformer, adapters: Sequence[Scaled], device: str, exact: bool) -> AdapterSet | None:
    """AdapterError for an adapter that does not fit; None where none counts. `exact` keeps changes as float32, else they become float16."""
    kept = in_order([(checked(adapter, model.config), scale) for adapter, scale in adapters])
    if not kept:
        return None
    refuse_conflicts(kept)
    return AdapterSet(kept, _Layer(model, kept, device, exact).over())


class _Layer:
    def __init__(self, model: Transformer, adapters: Sequence[Scaled], device: str, exact: bool):
        self.model, self.adapters, self.device, self.exact = model, adapters, device, exact
        self.replaced = {name: values for adapter, _ in adapters for name, values in adapter.replaced.items()}

    def over(self) -> Transformer:
        m = self.model
        return replace(
            m,
            tok_embeddings=self.matrix(EMBEDDING, m.tok_embeddings),
            blocks=tuple(self.block(i, block) for i, block in enumerate(m.blocks)),
            norm=self.norm("norm", m.norm),
            output=self.matrix(HEAD, m.output),
        )

    def block(self, i: int, block: Block) -> Block:
        fields: dict[str, object] = {}
        for part, names in (("attention", ATTENTION), ("feed_forward", FEED_FORWARD)):
            fields |= {w: self.matrix(f"layers.{i}.{part}.{w}.weight", getattr(block, w)) for w in names}
        fields |= {name: self.norm(f"layers.{i}.{name}", getattr(block, name)) for name in NORMS if getattr(block, name) is not None}
        c, at = self.model.config, f"layers.{i}.attention"
        q, kv = c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim
        if (heads := block.heads) is not None:
            bias, norm = heads.bias, heads.norm
            if bias is not None:
                bias = self.vector(bias, [(f"{at}.wq.bias", q), (f"{at}.wk.bias", kv), (f"{at}.wv.bias", kv)])
            if norm is not None:
                each = (c.head_dim, c.head_dim) if heads.per_head else (q, kv)
                norm = self.vector(norm, [(f"{at}.q_norm.weight", each[0]), (f"{at}.k_norm.weight", each[1])])
            fields["heads"] = replace(heads, bias=bias, norm=norm)
        mlp = f"layers.{i}.feed_forward"
        for name, parts in _biases(c, at, mlp).items():
            if (bias := getattr(block, name)) is not None:
                fields[name] = self.vector(bias, parts)
        return dataclasses.replace(block, **fields)  # type: ignore[arg-type]

    def norm(self, name: str, norm: Norm) -> Norm:
        dim = self.model.config.dim
        bias = None if norm.bias is None else self.vector(norm.bias, [(f"{name}.bias", dim)])
        return replace(norm, weight=self.vector(norm.weight, [(f"{name}.weight", dim)]), bias=bias)

    def vector(self, tensor: Tensor, parts: Sequence[tuple[str, int]]) -> Tensor:
        """The tensor itself, or a new one with the parts of these names and lengths replaced."""
        if not any(name in self.replaced for name, _ in parts):
            return tensor
        values, at = tensor.numpy().copy(), 0
        for name, n in parts:
            values[at : at + n] = self.replaced.get(name, values[at : at + n])
            at += n
        return upload(values, self.device)

    def matrix(self, name: str, weight: PackedWeight) -> PackedWeight:
        if name in self.replaced:
            kind = "F32" if self.exact else "F16"
            weight = self.model.kernels.pack(QuantMatrix.from_float32(self.replaced[name], kind), self.device)
        found = [(adapter.matrices[name], scale) for adapter, scale in self.adapters if name in adapter.matrices]
        if not found:
            return weight
        changes, gain = _changes(found, lambda: weight.to_tensor().numpy().T if name == EMBEDDING else weight.to_tensor().numpy())
        make = AdaptedWeight.of_embedding if name == EMBEDDING else AdaptedWeight.of
        return make(weight, changes, gain, self.device, self.exact)


def _biases(c: LlamaConfig, attention: str, mlp: str) -> dict[str, list[tuple[str, int]]]:
    return {
        "wo_bias": [(f"{attention}.wo.bias", c.dim)],
        "gated_bias": [(f"{mlp}.w1.bias", c.hidden_dim), (f"{mlp}.w3.bias", c.hidden_dim)],
        "w2_bias": [(f"{mlp}.w2.bias", c.dim)],
    }


def _changes(
    found: Sequence[tuple[LowRank, float]], base: Callable[[], np.ndarray]
) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray | None]:
    """A and B of each with the scales in B, and what the base's rows are multiplied by; half a change is half of what it adds."""
    changes: list[tuple[np.ndarray, np.ndarray]] = []
    gain: np.ndarray | None = None
    weight = base() if any(change.magnitude is not None for change, _ in found) else None
    for change, share in found:
        b = np.float32(change.scale * share) * change.b
        if change.magnitude is not None:
            assert weight is not None
            own = change.gain(weight)
            b = own[:, None] * b
            gain = (np.ones_like(own) if gain is None else gain) + np.float32(share) * (own - 1)
        changes.append((change.a, b))
    return changes, gain
