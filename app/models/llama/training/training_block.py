"""A decoder block's forward pass with adapters, and its gradient: what TrainingPass captures once for each layout of blocks."""

from dataclasses import dataclass, fields

from tinygrad import Tensor

from app.models.llama.config import LlamaConfig
from app.models.llama.training.adapter_layout import AdapterLayout
from app.models.llama.transformer import Block, Norm
from ext.tinygrad.kernels.training_kernels import Dropout, TrainingKernels


@dataclass(frozen=True)
class Kept:
    """What a block's gradient needs of its forward pass."""

    q: Tensor  # (T, H, Hd) turned
    k: Tensor  # (T, KvH, Hd) turned
    v: Tensor
    attended: Tensor  # (T, H, Hd)
    stats: Tensor  # (T, H, 2)
    between: Tensor  # (T, D)
    gate: Tensor  # (T, F)
    up: Tensor
    lows: dict[str, Tensor]  # (T, r) by module
    plain: tuple[Tensor, ...] = ()  # q and k as projected, (T, H * Hd) and (T, KvH * Hd), where a norm of heads follows
    unnormed: tuple[Tensor, ...] = ()  # what attention and feed-forward give, (T, D), where a norm follows

    @property
    def tensors(self) -> list[Tensor]:
        own = [getattr(self, field.name) for field in fields(self) if field.name not in ("lows", "plain", "unnormed")]
        return [*own, *self.plain, *self.unnormed, *self.lows.values()]


@dataclass(frozen=True)
class Places:
    """Of a row's tokens, on the device."""

    positions: Tensor  # (T,)
    first: Tensor  # (T,)


@dataclass(frozen=True)
class TrainingBlock:
    """One layer with its adapters; what it is given and what it keeps are buffers that stay where they are."""

    block: Block
    config: LlamaConfig
    kernels: TrainingKernels
    layout: AdapterLayout
    params: Tensor
    gradient: Tensor
    kept: Kept
    places: Places
    dropout: float
    seeds: tuple[Tensor, ...]  # of the pass and the layer, where there is dropout

    @property
    def inputs(self) -> list[Tensor]:
        """Every buffer of `forward`, in a fixed order, but for the residual streams."""
        p = self.places
        return [*self.kept.tensors, self.params, p.positions, p.first, *self.seeds, *self.block.tensors]

    def forward(self, x: Tensor, out: Tensor) -> list[Tensor]:
        """The residual stream x (T, D) through the block into `out`, which is the first result."""
        kernels, config, block, kept, lows = self.kernels, self.config, self.block, self.kept, dict[str, Tensor]()
        T, eps, unnormed = len(x), config.norm_eps, list[Tensor]()

        def linear(name: str, x: Tensor, out: Tensor | None = None, residual: Tensor | None = None) -> Tensor:
            y = kernels.linear(x, getattr(block, name), out, residual)
            if (place := self.layout.places.get(name)) is not None:
                y, lows[name] = kernels.low_rank(x, self.params, place, y, kept.lows[name], self._drop(name))
            return y

        def add(name: str, x: Tensor, bias: Tensor | None, norm: Norm | None, residual: Tensor, out: Tensor) -> Tensor:
            """What attention and feed-forward end with."""
            scale = config.traits.residual_scale
            if norm is None and scale == 1:
                return _plus(linear(name, x, out, residual), bias)
            if norm is None:
                return store(out, residual + scale * _plus(linear(name, x), bias))
            unnormed.append(_plus(linear(name, x, kept.unnormed[len(unnormed)]), bias))
            return store(out, residual + kernels.norm(unnormed[-1], norm.weight, norm.eps))

        normed, places = self._normed(x, block.attention_norm), [kept.q, kept.k, kept.v]
        into = [*kept.plain, *places[len(kept.plain) :]]
        q, k, v = (linear(name, normed, to.reshape(T, -1)) for name, to in zip(("wq", "wk", "wv"), into, strict=True))
        if block.heads is not None and (bias := block.heads.bias) is not None:
            parts = bias.split([q.shape[1], k.shape[1], v.shape[1]])
            q, k, v = (store(y, y + part) for y, part in zip((q, k, v), parts, strict=True))
        plain = [q, k] if kept.plain else []
        if plain:
            each = zip(plain, self._head_norms(), (kept.q, kept.k), strict=True)
            q, k = (store(to, kernels.norm(y.reshape(-1, len(w)), w, eps).reshape(to.shape)) for y, w, to in each)
        q, k, v = q.reshape(kept.q.shape), k.reshape(kept.k.shape), v.reshape(kept.v.shape)
        q, k = kernels.turn(q, k, self.places.positions, block.rope)
        scale = block.attention.scale_of(config.head_dim)
        attended, stats = kernels.attend(q, k, v, self.places.first, scale, kept.attended, kept.stats)
        between = add("wo", attended.reshape(T, -1), block.wo_bias, block.attention_post_norm, x, kept.between)
        normed = self._normed(between, block.ffn_norm)
        gate, up = linear("w1", normed, kept.gate), linear("w3", normed, kept.up)
        if block.gated_bias is not None:
            gate, up = (_plus(y, part) for y, part in zip((gate, up), block.gated_bias.split(config.hidden_dim), strict=True))
        gated = kernels.gated(gate, up, config.traits.activation)
        result = add("w2", gated, block.w2_bias, block.ffn_post_norm, between, out)
        return [result, *plain, *unnormed, q, k, v, attended, stats, between, gate, up, *lows.values()]

    def backward(self, x: Tensor, dy: Tensor, dx: Tensor) -> list[Tensor]:
        """dx from dy, the gradients of what went in and came out; those of the adapters are added in place."""
        kernels, config, block, kept, T = self.kernels, self.config, self.block, self.kept, len(x)
        eps, gradient, activation = config.norm_eps, self.gradient, config.traits.activation

        def back(name: str, grad: Tensor, x: Tensor, into: Tensor | None = None) -> Tensor:
            """The gradient of a product's input x, for that of its result, added to `into`; its adapter's is taken on the way."""
            nonlocal gradient
            result = kernels.linear_backward(grad, getattr(block, name), into)
            if (place := self.layout.places.get(name)) is None:
                return result
            drop = self._drop(name)
            result, low = kernels.low_rank_backward(grad, self.params, place, result, drop)
            gradient = kernels.outer(low, x, gradient, place.down, drop)
            gradient = kernels.outer(kept.lows[name], grad, gradient, place.up)
            return result

        def ended(dy: Tensor, norm: Norm | None, at: int) -> Tensor:
            """The gradient of what attention (0) or feed-forward (1) gives, for that of the sum that it ends in."""
            if norm is not None:
                return kernels.norm_backward(dy, kept.unnormed[at], norm.weight, norm.eps, None)
            return dy if config.traits.residual_scale == 1 else (dy * config.traits.residual_scale).contiguous()

        dh = back("w2", ended(dy, block.ffn_post_norm, 1), kernels.gated(kept.gate, kept.up, activation))
        dgate, dup = kernels.gated_backward(dh, kept.gate, kept.up, activation)
        normed = self._normed(kept.between, block.ffn_norm)
        dnormed = back("w3", dup, normed, back("w1", dgate, normed))
        dbetween = self._normed_backward(dnormed, kept.between, block.ffn_norm, dy, None)
        attended = kept.attended.reshape(T, -1)
        dattended = back("wo", ended(dbetween, block.attention_post_norm, 0), attended)
        scale, places = block.attention.scale_of(config.head_dim), (self.places.first, self.places.positions, block.rope)
        grads = list(kernels.attend_backward(dattended, attended, kept.stats, kept.q, kept.k, kept.v, *places, scale))
        for i, (y, weight) in enumerate(zip(kept.plain, self._head_norms(), strict=True)):
            rows = (-1, len(weight))
            grads[i] = kernels.norm_backward(grads[i].reshape(rows), y.reshape(rows), weight, eps, None).reshape(T, -1)
        normed, dinput = self._normed(x, block.attention_norm), None
        for name, grad in zip(("wq", "wk", "wv"), grads, strict=True):
            dinput = back(name, grad, normed, dinput)
        assert dinput is not None
        return [self._normed_backward(dinput, x, block.attention_norm, dbetween, dx), gradient]

    def _normed(self, x: Tensor, norm: Norm | None) -> Tensor:
        return x if norm is None else self.kernels.norm(x, norm.weight, norm.eps)

    def _normed_backward(self, dy: Tensor, x: Tensor, norm: Norm | None, residual: Tensor, out: Tensor | None) -> Tensor:
        """The gradient of x, of which `_normed` gave dy's and which was added to the sum whose gradient is `residual`."""
        if norm is not None:
            return self.kernels.norm_backward(dy, x, norm.weight, norm.eps, residual, out)
        return (dy + residual).contiguous() if out is None else store(out, dy + residual)

    def _head_norms(self) -> list[Tensor]:
        """Weights of the norms of queries and of keys: of each head, (Hd,), or of all of a token."""
        heads = self.block.heads
        if heads is None or (norm := heads.norm) is None:
            return []
        first = norm.shape[0] // 2 if heads.per_head else self.block.wq.shape[0]
        return [norm[:first].contiguous(), norm[first:].contiguous()]  # kernels take buffers from their start

    def _drop(self, name: str) -> Dropout | None:
        return Dropout(self.dropout, self.seeds[0], self.seeds[1], self.layout.modules.index(name)) if self.dropout else None


def _plus(y: Tensor, bias: Tensor | None) -> Tensor:
    """y (T, N) and a bias (N,), in the buffer of y."""
    return y if bias is None else store(y, y + bias)


def store(target: Tensor, values: Tensor) -> Tensor:
    """`values` in the buffer of `target`."""
    return Tensor(target.uop.after(target.uop.store(values.contiguous().uop)))
