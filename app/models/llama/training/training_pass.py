"""Gradients of adapters over a row of T tokens: one captured block forward and one back, replayed for every layer.

Forward, each layer keeps what its gradient needs, or, where that would be too much memory, only its input: then the block is run again
before its gradient is taken (gradient checkpointing, arXiv 1604.06174). The head sees only tokens that have a target, a few at a time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from tinygrad import Tensor, UOp

from app.models.llama.forward import POSITION, CapturedGraph
from app.models.llama.training.adapter_layout import AdapterLayout
from app.models.llama.training.errors import TrainingError
from app.models.llama.training.training_block import Kept, Places, TrainingBlock, store
from app.models.llama.traits import LLAMA
from app.models.llama.transformer import Transformer
from ext.tinygrad.buffers import read, upload, write
from ext.tinygrad.graph.compose import compose
from ext.tinygrad.kernels import training_kernels_for
from ext.tinygrad.kernels.training_kernels import ROW_TOKENS, TrainingKernels

HEAD_ROWS = 64  # tokens whose logits there are at a time
MOST_KEPT = 512 << 20  # bytes of activations that are kept for the way back; beyond, blocks are run twice


@dataclass(frozen=True)
class Row:
    """Samples side by side. `targets` are the ids that follow, -1 where none is learnt; `first`, where a token's sample begins."""

    ids: np.ndarray  # int32 (n,)
    targets: np.ndarray  # int32 (n,)
    first: np.ndarray  # int32 (n,)

    @property
    def learnt(self) -> int:
        return int((self.targets >= 0).sum())


@dataclass(frozen=True)
class Adapters:
    """What is trained, on the device: flat buffers by layer."""

    layout: AdapterLayout
    params: list[Tensor]
    gradients: list[Tensor]

    @classmethod
    def upload(cls, layout: AdapterLayout, layers: Sequence[np.ndarray], device: str) -> "Adapters":
        zeros = np.zeros(layout.size, np.float32)
        return cls(layout, [upload(values, device) for values in layers], [upload(zeros, device) for _ in layers])


def check_trainable(model: Transformer, max_length: int = 0) -> TrainingKernels:
    """What runs its gradients; TrainingError where the family or the device has none."""
    t, config = model.config.traits, model.config
    differs = [field.name for field in fields(t) if getattr(t, field.name) != getattr(LLAMA, field.name)]
    allowed = {
        "qkv_bias",
        "output_bias",
        "mlp_bias",
        "head_norm",
        "embedding_scale",
        "attention_scale",
        "windows",
        "long_rope",
        "yarn",
        "unrotated",
        "activation",
        "residual_scale",
        "logit_scale",
        "pre_norm",
        "post_norm",
        "local_rope",
    }
    if unknown := [name for name in differs if name not in allowed]:
        raise TrainingError(
            f"{config.name or config.architecture} cannot be trained yet: its blocks differ from LLaMA's by {', '.join(unknown)}; "
            "pick a LLaMA, SmolLM, Mistral, Qwen 2, dense Qwen 3, Phi, Gemma 1 or 3, Granite or OLMo 2"
        )
    if any(0 < window < max_length for window in t.windows):
        raise TrainingError(f"--max-length {max_length} exceeds the window of the model's attention; pass {max(t.windows)} or less")
    if (kernels := training_kernels_for(model.kernels)) is None:
        raise TrainingError("the kernels of this GPU have no gradients; set KERNELS=0 to train on tinygrad's own, or CPU=1")
    return kernels


class TrainingPass:
    """Rows of up to T tokens: `gradients` adds theirs to the adapters', `losses` only looks."""

    def __init__(self, model: Transformer, adapters: Adapters, T: int, device: str, dropout: float = 0.0, recompute: bool | None = None):
        """`recompute`: run blocks twice; None: where keeping what the way back needs would take more than MOST_KEPT."""
        assert T % ROW_TOKENS == 0
        self.model, self.adapters, self.T, self.device = model, adapters, T, device
        self.kernels, config = check_trainable(model), model.config
        self._dropout, self._layout = dropout, adapters.layout
        widths = 2 * config.n_heads * config.head_dim + 2 * config.n_kv_heads * config.head_dim + 2 * config.dim + 2 * config.hidden_dim
        widths += 2 * config.dim * config.traits.post_norm
        self.recompute = 4 * T * widths * config.n_layers > MOST_KEPT if recompute is None else recompute
        self._ids, positions, first = (self._zeros(T, kind=np.int32) for _ in range(3))
        self._places = Places(positions, first)
        self._x = [self._zeros(T, config.dim) for _ in range(config.n_layers + 1)]
        self._kept = [self._keep() for _ in range(1 if self.recompute else config.n_layers)]
        self._dx = [self._zeros(T, config.dim) for _ in range(2)]  # a layer reads one and writes the other
        self._seed = self._zeros(1, kind=np.uint32)
        self._layers = [upload(np.array([layer], np.uint32), device) for layer in range(config.n_layers)] if dropout else []
        self._rows, self._targets = (self._zeros(HEAD_ROWS, kind=np.int32) for _ in range(2))
        self._shares, self._parts = self._zeros(HEAD_ROWS), self._zeros(HEAD_ROWS, 3)
        self._position = UOp.variable(POSITION, 0, 1)
        self._graphs: dict[tuple, CapturedGraph] = {}
        self._forward: Replayed | None = None
        self._head: Replayed | None = None
        self._backward: Replayed | None = None

    def losses(self, row: Row) -> np.ndarray:
        """-log P of each target, float64, in the order of the row; no dropout is left out of this."""
        return self._run(row, 0.0, 0)

    def gradients(self, row: Row, share: float, seed: int = 0) -> np.ndarray:
        """The same losses, and the gradient of their sum times `share` added to the adapters' gradients; `seed` of the dropout."""
        losses = self._run(row, share, seed)
        if self._backward is None:
            self._backward = self._sequence(self._backward_steps())
        self._backward()
        return losses

    def _run(self, row: Row, share: float, seed: int) -> np.ndarray:
        n, T = len(row.ids), self.T
        assert n <= T, f"{n} tokens in a row of {T}"
        positions = np.zeros(T, np.int32)
        positions[:n] = np.arange(n) - row.first
        for buffer, values in ((self._ids, row.ids), (self._places.first, row.first)):
            padded = np.arange(T, dtype=np.int32) if buffer is self._places.first else np.zeros(T, np.int32)
            padded[:n] = values  # what fills the row up sees only itself
            write(buffer, padded)
        write(self._places.positions, positions)
        write(self._seed, np.array([seed], np.uint32))
        if self._forward is None:
            self._forward = self._sequence(self._forward_steps())
            self._head = self._sequence([self._head_step()])
        self._forward()
        places, losses = np.flatnonzero(row.targets >= 0), []
        for start in range(0, len(places), HEAD_ROWS):
            some = places[start : start + HEAD_ROWS]
            for buffer, values in ((self._rows, some), (self._targets, row.targets[some])):
                filled = np.zeros(HEAD_ROWS, np.int32)
                filled[: len(some)] = values
                write(buffer, filled)
            shares = np.zeros(HEAD_ROWS, np.float32)
            shares[: len(some)] = share
            write(self._shares, shares)
            assert self._head is not None
            self._head()
            parts = read(self._parts, np.empty((HEAD_ROWS, 3), np.float32))[: len(some)].astype(np.float64)
            losses.append(np.log(parts[:, 1]) + parts[:, 0] - parts[:, 2])
        return np.concatenate(losses) if losses else np.zeros(0)

    def _zeros(self, *shape: int, kind: type = np.float32) -> Tensor:
        return upload(np.zeros(shape, kind), self.device)

    def _keep(self) -> Kept:
        config, T = self.model.config, self.T
        heads, kv_heads = (T, config.n_heads, config.head_dim), (T, config.n_kv_heads, config.head_dim)
        return Kept(
            q=self._zeros(*heads),
            k=self._zeros(*kv_heads),
            v=self._zeros(*kv_heads),
            attended=self._zeros(*heads),
            stats=self._zeros(T, config.n_heads, 2),
            between=self._zeros(T, config.dim),
            gate=self._zeros(T, config.hidden_dim),
            up=self._zeros(T, config.hidden_dim),
            lows={name: self._zeros(T, self._layout.rank) for name in self._layout.modules},
            plain=tuple(self._zeros(T, n * config.head_dim) for n in ((heads[1], kv_heads[1]) if config.traits.head_norm else ())),
            unnormed=tuple(self._zeros(T, config.dim) for _ in range(2 if config.traits.post_norm else 0)),
        )

    def _kept_of(self, layer: int) -> Kept:
        return self._kept[0 if self.recompute else layer]

    def _block(self, layer: int) -> TrainingBlock:
        return TrainingBlock(
            block=self.model.blocks[layer],
            config=self.model.config,
            kernels=self.kernels,
            layout=self._layout,
            params=self.adapters.params[layer],
            gradient=self.adapters.gradients[layer],
            kept=self._kept_of(layer),
            places=self._places,
            dropout=self._dropout,
            seeds=(self._seed, self._layers[layer]) if self._dropout else (),
        )

    def _forward_steps(self) -> list[tuple[CapturedGraph, list[Tensor]]]:
        def begin() -> list[Tensor]:
            return [store(self._x[0], self.model.embed(self._ids)), store(self._dx[self._last], self._dx[self._last].zeros_like())]

        inputs = [self._ids, self._x[0], self._dx[self._last], *self.model.tok_embeddings.tensors]
        steps = [(self._graph(("embed",), begin), inputs)]
        return steps + [self._forward_step(layer) for layer in range(self.model.config.n_layers)]

    @property
    def _last(self) -> int:
        """Which of the two gradients of the residual stream the head writes."""
        return self.model.config.n_layers % 2

    def _forward_step(self, layer: int) -> tuple[CapturedGraph, list[Tensor]]:
        made, x, out = self._block(layer), self._x[layer], self._x[layer + 1]
        return self._graph(("forward", made.block.layout), lambda: made.forward(x, out)), [x, out, *made.inputs]

    def _backward_steps(self) -> list[tuple[CapturedGraph, list[Tensor]]]:
        steps = []
        for layer in reversed(range(self.model.config.n_layers)):
            if self.recompute:
                steps.append(self._forward_step(layer))
            steps.append(self._backward_step(layer))
        return steps

    def _backward_step(self, layer: int) -> tuple[CapturedGraph, list[Tensor]]:
        made, x, dy, dx = self._block(layer), self._x[layer], self._dx[(layer + 1) % 2], self._dx[layer % 2]
        function = self._graph(("backward", made.block.layout), lambda: made.backward(x, dy, dx))
        return function, [x, dy, dx, made.gradient, *made.inputs]

    def _head_step(self) -> tuple[CapturedGraph, list[Tensor]]:
        model, kernels, x, dx = self.model, self.kernels, self._x[-1], self._dx[self._last]

        def scaled(x: Tensor) -> Tensor:
            scale = model.config.traits.logit_scale
            return x if scale == 1 else (x * scale).contiguous()

        def head() -> list[Tensor]:
            some = kernels.rows(x, self._rows)
            logits = scaled(kernels.linear(kernels.norm(some, model.norm.weight, model.config.norm_eps), model.output))
            grad, parts = kernels.cross_entropy(logits, self._targets, self._shares)
            dsome = kernels.norm_backward(
                kernels.linear_backward(scaled(grad), model.output), some, model.norm.weight, model.config.norm_eps, None
            )
            return [kernels.add_rows(dsome, self._rows, dx), store(self._parts, parts)]

        inputs = [x, dx, self._rows, self._targets, self._shares, self._parts, *model.norm.tensors, *model.output.tensors]
        return self._graph(("head",), head), inputs

    def _graph(self, key: tuple, function: Callable[[], list[Tensor]]) -> CapturedGraph:
        """The captured graph of this kind of step: made once, replayed over each layer's buffers."""
        if key not in self._graphs:
            self._graphs[key] = CapturedGraph(f"training {key[0]}", lambda _: function(), self._position)
        return self._graphs[key]

    def _sequence(self, steps: list[tuple[CapturedGraph, list[Tensor]]]) -> "Replayed":
        for graph, inputs in steps:
            if not graph.ready:
                self._capture(graph, inputs)
        return Replayed(steps)

    def _capture(self, graph: CapturedGraph, inputs: list[Tensor]) -> None:
        """Capturing runs a step once: gradients and inputs are left as they were."""
        before = [(t, read(t, np.empty(t.shape, np.float32))) for t in (*self.adapters.gradients, *self._dx)]
        graph.capture(inputs, 0)
        for tensor, values in before:
            write(tensor, values)


class Replayed:
    """Captured steps one after another: as one native call, where the device has such a thing."""

    def __init__(self, steps: Sequence[tuple[CapturedGraph, list[Tensor]]]):
        self.steps = steps
        self.composite = compose([(graph.jit, inputs) for graph, inputs in steps])

    def __call__(self) -> None:
        if self.composite is not None:
            self.composite({POSITION: 0})
            return
        for graph, inputs in self.steps:
            graph(inputs, 0)
